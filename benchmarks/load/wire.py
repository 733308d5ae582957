"""One connection of a client that keeps a book of what came back.

The book counts as the server should: by route, method label and status. What can be no request (garbage, headers that
are too many or too slow) is under the route `_other`.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Book:
    """What the clients saw.

    Attributes:
        answered: Answers, by route, method label and status.
        kinds: Visits, by kind.
        left_unsure: Requests sent whole, whose client left at once: answered or cancelled, nobody here knows.
        rows_right: Rows whose answers were compared, and were right.
        wrong: What should not have happened.
    """

    answered: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    left_unsure: int = 0
    rows_right: int = 0
    wrong: list[str] = field(default_factory=list)


class Wire:
    """Connects when there is something to send, and again after a close."""

    def __init__(self, port: int, book: Book) -> None:
        self._port = port
        self._book = book
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, raw: bytes) -> None:
        """Send bytes, with a connection if there is none."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        _, writer = self._streams
        writer.write(raw)
        await writer.drain()

    async def answer(self, route: str | None, *, method: str = "POST", expect: set[int]) -> tuple[int, bytes]:
        """The next answer, status and body, written into the book under `route`; `None` is for what does not count.

        Raises:
            EOFError: The connection ended before.
            OSError: It broke.
            ValueError: What came is no answer.
        """
        if self._streams is None:
            raise EOFError("nothing was sent on this connection")
        reader, _ = self._streams
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head.split(" ", 2)[1])
        body = await reader.readexactly(int(head.partition("\r\ncontent-length:")[2].partition("\r\n")[0]))
        if route is not None:
            self._book.answered[route, method, str(status)] += 1
        if status not in expect:
            self.wrong(f"{status} instead of {sorted(expect)}: {body[:200]!r}")
        if "\r\nconnection: close" in head:
            await self.hang_up()
        return status, body

    async def ask(self, raw: bytes, route: str | None, *, method: str = "POST", expect: set[int]) -> tuple[int, bytes]:
        """Send a request and read its answer."""
        await self.send(raw)
        return await self.answer(route, method=method, expect=expect)

    async def hang_up(self) -> None:
        """Close the connection, if there is one."""
        if self._streams is None:
            return
        _, writer = self._streams
        self._streams = None
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:  # the server closed it first
            return

    def wrong(self, what: str) -> None:
        """Something should not have happened."""
        self._book.wrong.append(what[:300])


def head(method: str, target: str, headers: str = "") -> bytes:
    """Request line and headers; `headers` are whole lines."""
    return f"{method} {target} HTTP/1.1\r\nHost: load\r\n{headers}\r\n".encode()


def post(body: bytes, *, path: str = "/predict/digits", headers: str = "") -> bytes:
    """A whole POST of JSON."""
    return head("POST", path, f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}") + body
