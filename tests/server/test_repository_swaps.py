"""A request that has found a version is answered by it, however long it takes to decode it."""

import asyncio
import gzip
import json
from time import perf_counter

import pytest

from puppet_engine import PuppetEngine
from redserve.server import Settings, create_app
from redserve.server.call import LARGE_BYTES
from redserve.server.reply import Reply
from redserve.server.targets import Target, target_of
from server.in_process import client_of

SMALL = json.dumps({"instances": [[1.5, 2.5]]}).encode()
LARGE = json.dumps({"instances": [[1.5, 2.5]] * 1000}).encode() + b" " * LARGE_BYTES


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, LARGE),
        ({b"content-encoding": b"gzip"}, gzip.compress(SMALL)),
        ({b"content-encoding": b"gzip"}, gzip.compress(LARGE)),
    ],
    ids=["large", "compressed", "large and compressed"],
)
async def test_a_request_that_is_decoded_in_a_thread_outlives_the_version_that_it_has_found(registry, headers, body):
    engine = PuppetEngine()
    app = create_app(Settings.load(), engines={"cat": lambda: engine}, registry=registry)
    async with client_of(app):
        serving = app.state.redserve
        replied: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        target = target_of("/predict/cat")
        assert isinstance(target, Target)

        serving.service.infer(target, headers, body, replied.set_result, arrived_s=perf_counter())
        assert not replied.done()
        draining = asyncio.create_task(serving.repository.get("cat").drain())
        reply = await replied
        await draining

    assert reply.status == 200
    assert json.loads(reply.body)["predictions"][0] == [3.0, 5.0]
    assert engine.is_closed


async def test_a_request_that_cannot_be_decoded_holds_no_version_up(registry):
    app = create_app(Settings.load(), engines={"cat": PuppetEngine}, registry=registry)
    async with client_of(app) as client:
        answer = await client.post("/predict/cat", content=b"{" + b" " * LARGE_BYTES)
        async with asyncio.timeout(20):
            await app.state.redserve.repository.get("cat").drain()

    assert answer.status_code == 400


async def test_who_leaves_while_it_is_decoded_holds_no_version_up(registry):
    app = create_app(Settings.load(), engines={"cat": PuppetEngine}, registry=registry)
    async with client_of(app):
        serving = app.state.redserve
        target = target_of("/predict/cat")
        assert isinstance(target, Target)
        serving.service.infer(target, {}, LARGE, lambda reply: None, arrived_s=perf_counter()).cancel()

        async with asyncio.timeout(20):
            await serving.repository.get("cat").drain()
