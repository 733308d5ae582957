"""Waiting for the one reply of a request, or for its client to leave.

A task for each request that looks for its client would cost 10 us, and a timer for each that ends without it 2 us: one
timer for all finds those that have waited for long, and only these are watched.
"""

import asyncio
from time import perf_counter

from starlette.types import Receive

from redserve.server.reply import Reply

WATCH_AFTER_S = 0.02
"""A request that is not answered by then is watched."""


class Exchange:
    """One request, whose whole body has been received.

    Args:
        receive: ASGI's.
        began_s: When its body was there.

    Attributes:
        began_s: The same.
        loop: It is of.
        reply: What is waited for; `None` is that the client left.
    """

    __slots__ = ("_receive", "_watcher", "began_s", "loop", "reply")

    def __init__(self, receive: Receive, began_s: float) -> None:
        self.began_s = began_s
        self.loop = asyncio.get_running_loop()
        self.reply: asyncio.Future[Reply | None] = self.loop.create_future()
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None

    def answer(self, reply: Reply | None) -> None:
        """This is the reply, if there is none yet."""
        if not self.reply.done():
            self.reply.set_result(reply)

    def watch(self) -> None:
        """Look for the client, from now on."""
        self._watcher = self.loop.create_task(self._until_the_client_leaves())

    async def end(self) -> None:
        """Look no more."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)

    async def _until_the_client_leaves(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect":  # nothing else may follow a whole body
            self.answer(None)


class Exchanges:
    """The requests of one door that wait for their replies."""

    def __init__(self) -> None:
        self._waiting: dict[Exchange, None] = {}  # the oldest first
        self._loop: asyncio.AbstractEventLoop | None = None  # has our timer

    async def reply(self, exchange: Exchange) -> Reply | None:
        """The reply, or `None` when the client left before it."""
        reply = exchange.reply
        if reply.done():
            return reply.result()
        waiting = self._waiting
        waiting[exchange] = None
        if self._loop is not exchange.loop:
            self._loop = exchange.loop
            self._loop.call_later(WATCH_AFTER_S, self._look, self._loop)
        try:
            return await reply
        finally:
            if waiting.pop(exchange, exchange) is exchange:  # it is watched
                await exchange.end()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch those that have waited for long."""
        now_s = perf_counter()
        waiting = self._waiting
        while waiting:
            exchange = next(iter(waiting))
            left_s = exchange.began_s + WATCH_AFTER_S - now_s
            if left_s > 0:
                loop.call_later(left_s, self._look, loop)
                return
            del waiting[exchange]
            exchange.watch()
        self._loop = None
