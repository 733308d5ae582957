"""Models whose runs take the event loop's own cores: their batches start when the loop is quiet."""

import asyncio
from typing import Any

import numpy as np
import pytest

from engine.onnx_models import identity
from redserve.engine.base import Batchability
from redserve.engine.onnx_runtime import OnnxRuntimeEngine
from redserve.engine.tensors import Array, Tensors, TensorSpec
from redserve.models import ModelOptions, ServedModel

FLOAT32 = np.dtype(np.float32)


class Counting:
    """Remembers how many rows it ran."""

    inputs = (TensorSpec("x", FLOAT32, ("batch", 2)),)
    outputs = (TensorSpec("y", FLOAT32, ("batch", 2)),)
    batchability = Batchability(mode="dynamic", reason="the test says so")
    provider = "Counting"
    shares_cores = True

    def __init__(self) -> None:
        self.rows: list[int] = []

    def run(self, tensors: Tensors) -> list[Array]:
        self.rows.append(len(tensors["x"]))
        return [tensors["x"]]

    def interrupt(self, thread_id: int | None = None) -> None:
        pass

    def close(self) -> None:
        pass


async def test_requests_of_several_turns_of_the_loop_are_one_batch():
    engine = Counting()
    model = ServedModel("counting", lambda: engine, options=ModelOptions())
    await model.load()
    warm_up = len(engine.rows)
    answers: list[Any] = []
    for _ in range(5):
        model.infer({"x": np.ones((1, 2), np.float32)}, answers.append)
        await asyncio.sleep(0)
    await model.drain()

    assert engine.rows[warm_up:] == [5]
    assert len(answers) == 5


@pytest.mark.parametrize(
    ("cores", "threads", "shares"),
    [(1, 1, True), (2, 2, True), (2, 1, False), (4, 4, False)],
    ids=["the only core", "both cores", "one of two", "all of many"],
)
def test_a_run_on_the_cpu_shares_cores_where_it_takes_one_or_two_and_there_are_no_others(
    monkeypatch, tmp_path, cores, threads, shares
):
    monkeypatch.setattr("redserve.engine.onnx_runtime.usable_cpus", lambda: cores)
    engine = OnnxRuntimeEngine.load(identity(tmp_path), device="cpu", intra_op_threads=threads)

    assert engine.shares_cores is shares
