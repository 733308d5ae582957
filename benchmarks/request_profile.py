"""Where does the time of a small request go, within the process?

    python benchmarks/request_profile.py > benchmarks/results/profile_small_request.txt      needs redserve[dev]

64 connections without sockets, on one loop: each is given the same request (16 floats as JSON, an MLP 16-64-64-3), then
all answers are awaited, so that a batch is 64 rows; everything is on but the kernel. First the CPU a request without a
profiler, beside a fixed piece of Python that takes turns with it, since the machine's speed swings; then cProfile,
under which small functions look several times as expensive as they are.
"""

import asyncio
import cProfile
import io
import json
import pstats
import time
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from models.build import built
from prometheus_client import CollectorRegistry
from uvicorn.server import ServerState

from redserve.server import Settings, create_app
from redserve.server.http_limits import HttpLimits
from redserve.server.http_protocol import HttpProtocol

CONNECTIONS = 64
BODY = json.dumps({"instances": [[round(0.1234 * index, 4) for index in range(16)]]}).encode()
HEAD = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
REQUEST = HEAD % len(BODY) + BODY


class Transport:
    """Counts the answers."""

    def __init__(self) -> None:
        self.answers = 0

    def write(self, data: bytes) -> None:
        """Count it."""
        assert data.startswith(b"HTTP/1.1 200 "), data
        self.answers += 1

    def is_closing(self) -> bool:
        """Never."""
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Nothing is known."""
        return default


def reference() -> None:
    """A fixed piece of work, of dicts, tuples and short strings."""
    kept: dict[int, tuple[int, str]] = {}
    for index in range(1_500):
        kept[index & 63] = index, str(index)


async def main(path: Path) -> None:
    """Measure, print."""
    app = create_app(Settings(model=str(path)), registry=CollectorRegistry())
    config = uvicorn.Config(app, log_config=None)
    config.load()
    state = ServerState()
    async with app.router.lifespan_context(app):
        await app.state.redserve.loaded.wait()
        connections = []
        for _ in range(CONNECTIONS):
            connection = HttpProtocol(config, state, {}, limits=HttpLimits(), door=app.state.redserve.fast_door)
            connection.connection_made(Transport())  # type: ignore[arg-type]
            connections.append((connection, connection.transport))

        async def together() -> None:
            wanted = connections[0][1].answers + 1  # type: ignore[attr-defined]
            for connection, _ in connections:
                connection.data_received(REQUEST)
            while any(transport.answers < wanted for _, transport in connections):  # type: ignore[attr-defined]  # noqa: ASYNC110
                await asyncio.sleep(0)

        for _ in range(200):
            await together()
        taken: list[tuple[float, float]] = []
        for _ in range(1_400):
            began_s = time.thread_time()
            reference()
            between_s = time.thread_time()
            await together()
            own_s = (time.thread_time() - between_s) / CONNECTIONS
            taken.append((1e6 * own_s, own_s / (between_s - began_s)))
        own_us, ratios = sorted(us for us, _ in taken), sorted(ratio for _, ratio in taken)
        print(f"CPU a request: {own_us[140]:.1f} us at the 10th percentile, {own_us[700]:.1f} us at the median")
        print(f"of the reference: {ratios[140]:.4f} at the 10th percentile, {ratios[700]:.4f} at the median\n")
        with cProfile.Profile() as profile:
            for _ in range(300):
                await together()
    text = io.StringIO()
    pstats.Stats(profile, stream=text).strip_dirs().sort_stats("tottime").print_stats(45)
    print(text.getvalue().strip())


if __name__ == "__main__":
    print(f"{__doc__}\n")
    uvloop.run(main(built("small")))
