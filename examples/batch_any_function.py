"""Batch any function: concurrent requests share one call, and the queue shows beside the RED metrics.

    pip install . fastapi uvicorn
    python examples/batch_any_function.py

    curl 'http://127.0.0.1:8000/embed?text=hello'
    seq 100 | xargs -P 20 -I {} curl -s -o /dev/null 'http://127.0.0.1:8000/embed?text={}'
    curl -s http://127.0.0.1:8000/metrics | grep '^inference'

among which, for the 101 requests above, are

    inference_requests_total{route="/embed",method="GET",model="",code="200",outcome="ok"} 101
    inference_batches_total{model="embed",version="",why="idle"} 26
    inference_batch_queue_depth{model="embed",version=""} 0
    inference_queue_wait_seconds_bucket{model="embed",version="",le="..."} ...
    inference_batch_size_bucket{model="embed",version="",le="16"} ...
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

from redserve import BatchMetrics, REDMiddleware, RedserveError, answer_error, batched


@batched(max_batch_size=32, name="embed", observer=BatchMetrics())
def embed(texts: list[str]) -> list[list[float]]:
    """Stands for a model: 20 ms a call, hardly more for 32 texts than for one. Runs in a thread of its own."""
    time.sleep(0.02)
    return [[float(len(text)), float(text.count("l"))] for text in texts]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Lets what is queued finish when the server stops."""
    yield
    await embed.aclose()


app = FastAPI(lifespan=lifespan)
app.add_middleware(REDMiddleware)
app.add_exception_handler(RedserveError, answer_error)  # a full queue is 503, not 500


@app.get("/embed")
async def embed_one(text: str) -> list[float]:
    """One text in, one vector out; whoever asks at the same time shares the call."""
    return await embed(text)


if __name__ == "__main__":
    uvicorn.run(app, port=8000)
