"""Which models run on the event loop: short ones, on engines that allow it."""

import threading
from typing import Any

import numpy as np
import pytest

from engine.onnx_models import identity, token_sum
from redserve.engine.base import Batchability, Engine
from redserve.engine.onnx_runtime import OnnxRuntimeEngine
from redserve.engine.tensors import Array, Tensors, TensorSpec
from redserve.models import ModelOptions, ModelState, ServedModel

FLOAT32 = np.dtype(np.float32)


class Doubling:
    """Takes next to no time, and remembers where it ran."""

    inputs = (TensorSpec("x", FLOAT32, ("batch", 2)),)
    outputs = (TensorSpec("y", FLOAT32, ("batch", 2)),)
    batchability = Batchability(mode="dynamic", reason="the test says so")
    provider = "Doubling"

    def __init__(self, *, can_run_inline: bool = True) -> None:
        self.can_run_inline = can_run_inline
        self.threads: list[threading.Thread] = []

    def run(self, tensors: Tensors) -> list[Array]:
        self.threads.append(threading.current_thread())
        return [2 * tensors["x"]]

    def interrupt(self, thread_id: int | None = None) -> None:
        pass

    def close(self) -> None:
        pass


async def loaded(engine: Engine, **options: Any) -> ServedModel:
    model = ServedModel("doubling", lambda: engine, options=ModelOptions(**options))
    await model.load()
    assert model.state is ModelState.READY, model.reason
    return model


@pytest.mark.parametrize(
    ("options", "can_run_inline", "is_inline"),
    [
        ({"inline_below_s": 10.0}, True, True),
        ({"inline_below_s": 10.0}, False, False),
        ({"inline_below_s": 1e-9}, True, False),
        ({"inline_below_s": 10.0, "instances": 2}, True, False),
        ({}, True, False),
    ],
    ids=["short", "the engine forbids it", "too long", "several instances", "not asked for"],
)
async def test_a_model_runs_on_the_loop_where_all_speaks_for_it(
    options: dict[str, Any], can_run_inline: bool, is_inline: bool
):
    engine = Doubling(can_run_inline=can_run_inline)
    model = await loaded(engine, **options)
    warm_up = len(engine.threads)
    answers: list[Any] = []
    model.infer({"x": np.ones((1, 2), np.float32)}, answers.append)
    assert model.is_inline is is_inline
    await model.drain()

    assert answers[0].result[0].tolist() == [[2, 2]]
    assert {thread is threading.current_thread() for thread in engine.threads[warm_up:]} == {is_inline}


@pytest.mark.parametrize(("make", "can_run_inline"), [(identity, True), (token_sum, False)])
def test_onnx_on_the_cpu_may_run_inline_unless_requests_choose_its_sizes(tmp_path, make, can_run_inline):
    engine = OnnxRuntimeEngine.load(make(tmp_path), device="cpu")

    assert engine.can_run_inline is can_run_inline
