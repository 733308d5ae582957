"""What does a request to `/predict` cost by the ASGI door, in both of its ways, and what would it cost as a route?

    python benchmarks/door_cost.py [--quick]      needs redserve[server]; prints a table, writes benchmarks/results/

All answer with the same service and model, in one process without sockets, 64 requests at a time; the model answers at
once. The short way passes FastAPI's layers and our own, the long way has those up to the door, the route has all. CPU
time of the whole process per request, rounds interleaved; answers are checked before they are timed.
"""

import argparse
import asyncio
import json
import platform
import statistics
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import Request, Response
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from redserve.engine import Array, Batchability, Tensors, TensorSpec
from redserve.server import Settings, create_app
from redserve.server.application import Application
from redserve.server.reply import Reply
from redserve.server.targets import ONLY_MODEL

RESULTS = Path(__file__).parent / "results" / "door_cost.json"
BODY = json.dumps({"instances": [[0.5] * 16]}).encode()
CONCURRENCY = 64
Post = Callable[[], Awaitable[bytes]]


class Echo:
    """Answers with its input: no model, only what is around one."""

    inputs = (TensorSpec("x", np.dtype(np.float32), ("batch", 16)),)
    outputs = (TensorSpec("y", np.dtype(np.float32), ("batch", 16)),)
    batchability = Batchability(mode="dynamic", reason="each row by itself")
    provider = "none"

    def run(self, tensors: Tensors) -> list[Array]:
        """Answer."""
        return [tensors["x"].copy()]

    def interrupt(self, thread_id: int | None = None) -> None:
        """Nothing runs long."""

    def close(self) -> None:
        """Nothing to free."""


def make_app() -> Application:
    """The reference server, with its `/predict` also as an ordinary route, `/route`."""
    app = create_app(Settings(), engines={"echo": Echo}, registry=CollectorRegistry())
    service = app.state.redserve.service

    @app.post("/route")
    async def route(request: Request) -> Response:
        arrived_s = time.perf_counter()
        body = await request.body()
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        service.infer(ONLY_MODEL, {}, body, answered.set_result, arrived_s=arrived_s)
        reply = await answered
        return Response(reply.body, reply.status, {name.decode(): value.decode() for name, value in reply.headers})

    return app


def poster(app: ASGIApp, path: str) -> Post:
    """A function that posts `BODY` and returns the answer's body."""
    headers = [(b"host", b"test"), (b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def post() -> bytes:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
        }
        await app(scope, receive, send)
        return bytes(sent[-1]["body"])

    return post


async def cpu_us(post: Post, *, batches: int) -> float:
    """Process CPU time of one request, in microseconds."""
    started_s = time.process_time()
    for _ in range(batches):
        await asyncio.gather(*(post() for _ in range(CONCURRENCY)))
    return 1e6 * (time.process_time() - started_s) / (batches * CONCURRENCY)


async def measure(*, rounds: int, batches: int) -> dict[str, list[float]]:
    """Microseconds of CPU a request, of each round."""
    app = make_app()
    async with app.router.lifespan_context(app):
        await app.state.redserve.loaded.wait()
        posts = {
            "ASGI door": poster(app, "/predict"),
            "ASGI door, the long way": poster(app.long_way, "/predict"),
            "FastAPI route": poster(app, "/route"),
        }
        taken: dict[str, list[float]] = {name: [] for name in posts}
        for name, post in posts.items():
            answer = json.loads(await post())
            if answer != {"predictions": [[0.5] * 16]}:
                raise SystemExit(f"{name} answered {answer}")
        for _ in range(rounds):
            for name, post in posts.items():
                taken[name].append(round(await cpu_us(post, batches=batches), 2))
    return taken


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="check that it works; write nothing")
    quick = parser.parse_args().quick
    taken = asyncio.run(measure(rounds=2 if quick else 15, batches=2 if quick else 50))
    medians = {name: statistics.median(times) for name, times in taken.items()}
    for name, times in taken.items():
        print(f"{name:<23} {medians[name]:7.1f} us median, {min(times):7.1f} us lowest, of CPU a request")
    if quick:
        return
    ratios = sorted(a / b for a, b in zip(taken["FastAPI route"], taken["ASGI door"], strict=True))
    print(f"the route costs {statistics.median(ratios):.2f} times the door ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    RESULTS.write_text(
        json.dumps(
            {
                "question": "what does a request cost by the ASGI door, in both of its ways, and as a route?",
                "command": "python benchmarks/door_cost.py",
                "unit": "microseconds of process CPU a request, a value per round",
                "concurrency": CONCURRENCY,
                "rounds": taken,
                "median_ratio": round(statistics.median(ratios), 3),
                "versions": {
                    name: version(name) for name in ("redserve", "fastapi", "starlette", "uvicorn", "numpy", "orjson")
                }
                | {"python": platform.python_version()},
                "machine": {"system": platform.system(), "machine": platform.machine()},
            },
            indent=1,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
