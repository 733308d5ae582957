"""An open-loop HTTP sender: each request leaves when the clock says so, whatever became of those before it.

    plan: 0.000 0.004 0.005 ... s ─ pacer ─> an idle connection, else a new one ─> server
                                                  └─ answer ─> Exchange: planned, sent, ended, status, body

Latency counts from the planned time, so that neither a slow server nor a slow sender can hide a request that had to
wait (no coordinated omission); how late the sender itself was is kept apart. One request at a time on a connection;
there are as many connections as there are requests without an answer.
"""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import cast

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: forget at once, leave no TIME_WAIT behind

UNANSWERED, BROKEN, NO_ROOM = 0, -1, -2
"""Statuses of requests that had no answer when the clients left, of those whose connection failed, and of those whose
connection was one too many: it is refused before the server counts a request.
"""


@dataclass(slots=True)
class Exchange:
    """One request and what became of it; times in seconds since the plan began.

    Attributes:
        planned_s: When it was to leave.
        sent_s: When the sender got to it; a connection that is slow to come is the server's delay, not the sender's.
        ended_s: When its answer was complete.
        status: The answer's, or one of those above.
        retry_after_s: What the answer said; 0 where it said nothing.
        body: The answer's; of a broken one, what is known.
    """

    planned_s: float
    sent_s: float = 0.0
    ended_s: float = 0.0
    status: int = UNANSWERED
    retry_after_s: int = 0
    body: bytes = b""

    @property
    def latency_s(self) -> float:
        """From the planned time to the whole answer."""
        return self.ended_s - self.planned_s


def poisson(rate_per_s: float, seconds: float, *, seed: int) -> list[float]:
    """Arrival times of independent clients."""
    draw, now_s, plan = random.Random(seed), 0.0, []
    while (now_s := now_s + draw.expovariate(rate_per_s)) < seconds:
        plan.append(now_s)
    return plan


class OpenLoop:
    """Sends to one server.

    Args:
        port: The server's, on this machine.
        request: The bytes of request number so and so.
    """

    def __init__(self, port: int, request: Callable[[int], bytes]) -> None:
        self._port = port
        self._request = request
        self._lanes: set[_Lane] = set()
        self._idle: list[_Lane] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._asking = 0
        self._is_quiet, self._is_empty = asyncio.Event(), asyncio.Event()
        self._on_free: Callable[[_Lane], None] = self._idle.append
        self._began_s = 0.0

    async def drive(self, plan: Sequence[float], *, patience_s: float, lanes: int) -> list[Exchange]:
        """Send as planned, wait `patience_s` for the last answers, hang up on the rest.

        Args:
            plan: When each request leaves, in seconds from now, in order.
            patience_s: From the last planned time.
            lanes: Connections to begin with.
        """
        await asyncio.gather(*(self._open(None) for _ in range(lanes)))
        exchanges = [Exchange(planned_s) for planned_s in plan]
        self._began_s = perf_counter()
        for number, exchange in enumerate(exchanges):
            early_s = exchange.planned_s - self.now_s()
            if early_s > 0:
                await asyncio.sleep(early_s)
            self._send(number, exchange)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_quiet.wait(), max(plan[-1] + patience_s - self.now_s(), 0))
        await self._hang_up()
        return exchanges

    async def saturate(self, *, seconds: float, lanes: int) -> list[Exchange]:
        """A closed loop instead, to find the capacity: each connection asks again as soon as it is answered."""
        exchanges: list[Exchange] = []

        def again(lane: _Lane) -> None:
            if self.now_s() < seconds:
                exchanges.append(Exchange(self.now_s()))
                self._asking += 1
                lane.send(self._request(len(exchanges) - 1), exchanges[-1])

        self._on_free = again
        self._began_s = perf_counter()
        await asyncio.gather(*(self._open(None) for _ in range(lanes)))
        await self._is_quiet.wait()
        await self._hang_up()
        return exchanges

    def now_s(self) -> float:
        """Seconds since the plan began."""
        return perf_counter() - self._began_s

    def answered(self, lane: "_Lane") -> None:
        """A request is done with; its connection may still be of use."""
        if lane in self._lanes:
            self._on_free(lane)
        self._asking -= 1
        if not self._asking:
            self._is_quiet.set()

    def lost(self, lane: "_Lane") -> None:
        """A connection is gone."""
        self._lanes.discard(lane)
        if not self._lanes:
            self._is_empty.set()

    def _send(self, number: int, exchange: Exchange) -> None:
        exchange.sent_s = self.now_s()
        raw = self._request(number)
        self._asking += 1
        self._is_quiet.clear()
        while self._idle:
            lane = self._idle.pop()
            if lane in self._lanes:
                lane.send(raw, exchange)
                return
        opening = asyncio.get_running_loop().create_task(self._open((raw, exchange)))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def _open(self, first: tuple[bytes, Exchange] | None) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, lane = await loop.create_connection(lambda: _Lane(self), "127.0.0.1", self._port)
        except OSError as error:
            if first is None:
                raise
            first[1].status, first[1].body = BROKEN, repr(error).encode()
            self._asking -= 1
            return
        self._lanes.add(lane)
        if first is None:
            self._on_free(lane)
        else:
            lane.send(*first)

    async def _hang_up(self) -> None:
        await asyncio.gather(*self._opening)
        for lane in self._lanes:
            lane.abort()
        if self._lanes:
            await self._is_empty.wait()


class _Lane(asyncio.Protocol):
    """One connection, with at most one request on it."""

    def __init__(self, owner: OpenLoop) -> None:
        self._owner = owner
        self._received = b""
        self._transport: asyncio.Transport
        self.exchange: Exchange | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, raw: bytes, exchange: Exchange) -> None:
        self.exchange = exchange
        self._transport.write(raw)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        fields = dict(_fields(head))
        if len(body) < int(fields[b"content-length"]) or self.exchange is None:
            return
        exchange, self.exchange, self._received = self.exchange, None, b""
        exchange.ended_s = self._owner.now_s()
        exchange.status = NO_ROOM if b"too_many_connections" in body else int(head[9:12])
        exchange.retry_after_s = int(fields.get(b"retry-after", b"0"))
        exchange.body = body
        if fields.get(b"connection") == b"close":
            self._transport.close()
            self._owner.lost(self)
        self._owner.answered(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._owner.lost(self)
        if self.exchange is not None:  # without our doing
            self.exchange.status = NO_ROOM if b"too_many_connections" in self._received else BROKEN
            self.exchange.body = self._received[-200:] or repr(error).encode()  # refused before it was asked, or lost
            self._owner.answered(self)

    def abort(self) -> None:
        """Leave without a word."""
        self.exchange = None
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._transport.abort()


def _fields(head: bytes) -> Iterator[tuple[bytes, bytes]]:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        yield name.lower(), value.strip()
