import asyncio

from in_process import client_of

from drive_asgi import scope_of
from puppet_engine import PuppetEngine
from redserve.server import Settings, create_app

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
