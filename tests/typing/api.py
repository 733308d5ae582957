"""What users write, checked by mypy --strict and never run."""

import asyncio
from collections.abc import Sequence

import numpy as np
from fastapi import FastAPI, Request
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from redserve import (
    Batcher,
    BatchMetrics,
    BatchPolicy,
    QueueFull,
    REDMetrics,
    REDMiddleware,
    RedserveError,
    answer_error,
    batched,
    latency_buckets,
    metrics_app,
    set_model,
    trace_exemplar,
)
from redserve.bench import Load, Poisson, Tally, run_load
from redserve.engine import Array, Batchability, Engine, Tensors, TensorSpec
from redserve.server import Settings, create_app

registry = CollectorRegistry()

app = FastAPI()
app.add_middleware(REDMiddleware)
app.add_middleware(
    REDMiddleware,
    registry=registry,
    buckets=latency_buckets(slo=0.1),
    metrics_path=None,
    exemplar=trace_exemplar,
    disconnect_check_s=None,
)
app.add_exception_handler(RedserveError, answer_error)
app.mount("/internal/metrics", metrics_app(registry))
wrapped = REDMiddleware(Starlette(), excluded_paths=("/health",))
metrics = REDMetrics(registry, buckets=latency_buckets([0.05, 0.2]))


@app.get("/")
async def named(request: Request) -> None:
    """A handler that says which model it used."""
    set_model(request, "resnet")


@batched(max_batch_size=32, name="embed", observer=BatchMetrics())
def embed(texts: list[str]) -> list[float]:
    """A plain function of lists."""
    return [float(len(text)) for text in texts]


@batched
async def embed_async(texts: list[str]) -> Sequence[float]:
    """An async function of lists."""
    return [float(len(text)) for text in texts]


async def use() -> None:
    """Call them."""
    length: float = await embed("text")
    lengths: tuple[float, float] = await asyncio.gather(embed("a"), embed_async("b"))
    await embed.aclose()
    batcher: Batcher[str, float] = Batcher(
        lambda texts: [float(len(text)) for text in texts], policy=BatchPolicy(max_batch_size=8), name="lengths"
    )
    try:
        length = await batcher("text", rows=1)
    except QueueFull as error:
        waiting: int = error.waiting
        raise RuntimeError(f"{waiting} wait, {length} of {lengths}") from error
    await batcher.aclose(grace_s=1.0)


class Doubling:
    """An engine of one's own."""

    inputs: Sequence[TensorSpec] = (TensorSpec("x", np.dtype(np.float32), ("batch", 2)),)
    outputs: Sequence[TensorSpec] = (TensorSpec("y", np.dtype(np.float32), ("batch", 2)),)
    batchability = Batchability(mode="dynamic", reason="each row by itself")
    provider = "numpy"

    def run(self, tensors: Tensors) -> list[Array]:
        """Double."""
        return [2 * tensors["x"]]

    def interrupt(self, thread_id: int | None = None) -> None:
        """Nothing to interrupt."""

    def close(self) -> None:
        """Nothing to free."""


engine: Engine = Doubling()
server: FastAPI = create_app(Settings.load({"port": 9000}), engines={"doubling": Doubling}, registry=registry)

load = Load(host="127.0.0.1", port=8000, requests=[b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"], arrivals=Poisson(500.0))
tally: Tally = run_load(load, warm_up_s=1.0)
p99_s: float = tally.latency.percentile_s(99)
