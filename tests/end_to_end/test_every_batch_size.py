"""64 clients at once at every batch size from 1 to 64: a real model in the real application, over real connections.

One uvicorn serves an application for each size, `/17/predict` and so on: starting and stopping 64 would take longer.
"""

import asyncio
import json
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from fetch import Refused
from live_app import LiveApp
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.routing import Mount

from engine.onnx_models import row_encoding
from redserve.engine.onnx_runtime import OnnxRuntimeEngine
from redserve.server import Settings, create_app

SIZES = range(1, 65)
CLIENTS = 64
LEAST_ROUNDS = 3
MOST_ROUNDS = 100  # until as many rows as allowed have run together
LIMIT_S = 60.0


class WatchedEngine(OnnxRuntimeEngine):
    """Notes how many rows each run has."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.ran_rows = []

    def run(self, tensors):
        self.ran_rows.append(len(tensors["x"]))
        return super().run(tensors)


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    path = row_encoding(tmp_path_factory.mktemp("model"))
    return {size: WatchedEngine.load(path, device="cpu", intra_op_threads=1) for size in SIZES}


@pytest.fixture(scope="module")
def live(engines):
    apps = {size: app_of(engine, size) for size, engine in engines.items()}

    @asynccontextmanager
    async def lifespan(_):
        async with AsyncExitStack() as running:
            for app in apps.values():
                await running.enter_async_context(app.router.lifespan_context(app))
            yield

    with LiveApp(Starlette(routes=[Mount(f"/{size}", app) for size, app in apps.items()], lifespan=lifespan)) as live:
        yield live


def app_of(engine, max_batch_size):
    settings = Settings.load({"max_batch_size": max_batch_size, "max_queue_delay_ms": 20})
    return create_app(settings, engines={"row_encoding": lambda: engine}, registry=CollectorRegistry())


@pytest.mark.parametrize("size", SIZES)
def test_each_client_gets_the_answer_to_its_own_row_from_batches_of_every_size(live, engines, size):
    ran_rows = engines[size].ran_rows
    wait_until_ready(live, size)
    ran_rows.clear()  # of the warm-up

    rounds = asyncio.run(ask_until_a_batch_is_full(live.port, size, ran_rows))

    assert max(ran_rows) == size
    assert sum(ran_rows) == CLIENTS * rounds


def wait_until_ready(live, size):
    deadline_s = time.monotonic() + LIMIT_S
    while True:
        try:
            return live.get(f"/{size}/readyz")
        except Refused:
            assert time.monotonic() < deadline_s, "it never became ready"
            time.sleep(0.005)


async def ask_until_a_batch_is_full(port, size, ran_rows):
    """Each client asks once a round, all at the same time; each answer is checked. Returns the number of rounds."""
    async with asyncio.timeout(LIMIT_S), AsyncExitStack() as connections:
        clients = [await connections.enter_async_context(connected(port)) for _ in range(CLIENTS)]
        for round_number in range(MOST_ROUNDS):
            rows = [[number, round_number, -number, 0.5] for number in range(CLIENTS)]
            answers = await asyncio.gather(
                *(ask(*client, size, row) for client, row in zip(clients, rows, strict=True))
            )
            assert answers == [{"predictions": [[2 * x + 1 for x in row]]} for row in rows]
            if round_number + 1 >= LEAST_ROUNDS and max(ran_rows) >= size:
                break
    return round_number + 1


@asynccontextmanager
async def connected(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


async def ask(reader, writer, size, row):
    body = json.dumps({"instances": [row]}).encode()
    about = f"Host: test\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"POST /{size}/predict HTTP/1.1\r\n{about}\r\n".encode() + body)
    status, *fields = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    assert status.split()[1] == b"200"
    (length,) = (field.partition(b":")[2] for field in fields if field.startswith(b"content-length:"))
    return json.loads(await reader.readexactly(int(length)))
