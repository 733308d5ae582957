import asyncio

import pytest
from in_process import client_of

from drive_asgi import scope_of
from puppet_engine import PuppetEngine
from redserve.server import Settings, create_app
from redserve.server.asgi_door import InferenceDoor

BODY = b'{"instances": [[1, 2]]}'


class Sender:
    """A client that sends its body piece by piece."""

    def __init__(self, app):
        self.pieces = asyncio.Queue()
        self.sent = []
        self.answer = asyncio.create_task(app(scope_of("/predict", "POST"), self.pieces.get, self._send))

    def put(self, piece, *, more):
        self.pieces.put_nowait({"type": "http.request", "body": piece, "more_body": more})

    async def status(self):
        await self.answer
        return self.sent[0]["status"]

    async def _send(self, message):
        self.sent.append(message)


async def test_bodies_that_are_on_their_way_share_a_bound_and_give_their_part_back(registry):
    settings = Settings.load({"max_queue_mib": 1, "max_body_mib": 2})
    app = create_app(settings, engines={"puppet": PuppetEngine}, registry=registry)
    async with client_of(app):
        for _ in range(3):
            first, second = Sender(app), Sender(app)
            first.put(b" " * 700_000, more=True)
            second.put(b" " * 700_000, more=True)
            assert await second.status() == 503
            assert b"queue_full" in second.sent[1]["body"]
            first.put(BODY, more=False)
            assert await first.status() == 200
            left = Sender(app)
            left.put(b" " * 700_000, more=True)
            left.pieces.put_nowait({"type": "http.disconnect"})
            await left.answer
            assert left.sent == []


async def test_a_body_that_comes_later_is_waited_for(registry):
    app = create_app(Settings(), engines={"puppet": PuppetEngine}, registry=registry)
    async with client_of(app):
        late = Sender(app)
        await asyncio.sleep(0)
        late.put(BODY[:5], more=True)
        late.put(BODY[5:], more=False)

        assert await late.status() == 200


async def test_a_receive_that_is_no_coroutine_is_awaited_all_the_same(registry):
    app = create_app(Settings(), engines={"puppet": PuppetEngine}, registry=registry)
    async with client_of(app) as client:
        await client.get("/livez")
        door = app.middleware_stack
        while not isinstance(door, InferenceDoor):
            door = door.app
        sent = []

        def receive():
            message = asyncio.get_running_loop().create_future()
            message.set_result({"type": "http.request", "body": BODY, "more_body": False})
            return message

        async def send(message):
            sent.append(message)

        await door(scope_of("/predict", "POST"), receive, send)

    assert sent[0]["status"] == 200


async def test_who_is_cancelled_while_its_body_comes_leaves_nothing_behind(registry):
    app = create_app(Settings(), engines={"puppet": PuppetEngine}, registry=registry)
    async with client_of(app):
        cancelled = Sender(app)
        await asyncio.sleep(0)
        cancelled.answer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled.answer

        assert not cancelled.pieces._getters
        assert cancelled.sent == []
