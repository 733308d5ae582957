"""One HTTP/1.1 connection that is kept alive, with one request on it at a time."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import httptools

if TYPE_CHECKING:
    from redserve.bench.sender import Sender


@dataclass(slots=True)
class Departure:
    """A request on its way; times in seconds since the run began.

    Attributes:
        number: Counted from 0; the body is number modulo the bodies there are.
        planned_s: When it was to leave: latency counts from here. In a closed loop, when its connection was free.
        taken_s: When the sender got to it; what lies between is the sender's own delay.
        sent_s: When it was written to a connection; what lies between is the wait for a free connection.
    """

    number: int
    planned_s: float
    taken_s: float
    sent_s: float = 0.0


class Connection(asyncio.Protocol):
    """Tells its sender of each answer, and of its end.

    Attributes:
        departure: The request it waits for; `None` when it is idle.
    """

    def __init__(self, sender: "Sender") -> None:
        self._sender = sender
        self._parts: list[bytes] = []
        self._parser: Any = httptools.HttpResponseParser(self)
        self._write: Callable[[bytes], None]
        self.transport: asyncio.Transport
        self.departure: Departure | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands; from here on it may be used."""
        self.transport = cast(asyncio.Transport, transport)
        self._write = self.transport.write

    def send(self, departure: Departure, raw: bytes) -> None:
        """Write a whole request."""
        self.departure = departure
        self._write(raw)

    def data_received(self, data: bytes) -> None:
        """Part of an answer, or all of it."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._give_up("not_http", f"{error}: {data[:200]!r}")
        except httptools.HttpParserUpgrade:
            self._give_up("not_http", "the server switched to another protocol")

    def on_body(self, part: bytes) -> None:
        """httptools: part of the answer's body."""
        self._parts.append(part)

    def on_message_complete(self) -> None:
        """httptools: the answer is complete."""
        status = self._parser.get_status_code()
        departure = self.departure
        if status < 200:  # 100 Continue, 103 Early Hints: the answer follows
            return
        if departure is None:  # nobody asked: as a server does that closes an idle connection with 408
            self.transport.close()
            return
        body = b"".join(self._parts)
        self._parts.clear()
        self.departure = None
        if not self._parser.should_keep_alive():
            self.transport.close()
            self._sender.lost(self)
        self._sender.answered(self, departure, status, body)

    def connection_lost(self, error: Exception | None) -> None:
        """It is gone, by the server's doing or by ours."""
        self._give_up("connection_lost", str(error or "the server closed the connection before it had answered"))
        self._sender.lost(self)

    def abandon(self) -> Departure | None:
        """Hang up; the request that was under way, if one was."""
        departure, self.departure = self.departure, None
        self.transport.abort()
        return departure

    def _give_up(self, reason: str, detail: str) -> None:
        departure = self.abandon()
        if departure is not None:
            self._sender.failed(self, departure, reason, detail)
