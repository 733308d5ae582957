"""Request bodies on their way in: how long each may be, how slowly it may come, and how much all hold together.

receive ─ read: 413, 408, 503 ─> body ─ hold, while a thread unpacks and decodes it: 503 ─> queue, which counts itself
"""

import asyncio
from collections.abc import Awaitable, Generator
from concurrent.futures import ThreadPoolExecutor
from types import CoroutineType
from typing import Any

from starlette.types import Message, Receive

from redserve.errors import QueueFull, SlowRequest, TooLarge, TooMuchToRead

MIN_BODY_BYTES_PER_S = 1_000
"""A body that comes faster is never too slow. Source: Apache's mod_reqtimeout, which asks for 500."""

MAX_LENGTH_DIGITS = 18
"""A longer `Content-Length` is no size of anything; `int` itself refuses one of 4,300 digits."""


class Bodies:
    """The bodies of one server that are not in a model's queue yet; on its event loop only.

    Args:
        max_body_bytes: A longer body is refused.
        max_held_bytes: All of them together, with what reading them makes; one that exceeds it is refused.
        timeout_s: A body that has not come by then is refused; each 1,000 bytes of it give a second more.

    Attributes:
        max_body_bytes: As given.
        reader: The one thread that unpacks and reads large ones. Reading holds the GIL, so that several would not be
            faster, and would keep the event loop waiting for all of them.
    """

    def __init__(self, *, max_body_bytes: int, max_held_bytes: int, timeout_s: float) -> None:
        self.max_body_bytes = max_body_bytes
        self._max_held_bytes = max_held_bytes
        self.timeout_s = timeout_s
        self._held_bytes = 0
        self.reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="redserve-bodies")

    def hold(self, size_bytes: int) -> None:
        """Count `size_bytes` until they are released.

        Raises:
            TooMuchToRead: They are too much by themselves.
            QueueFull: All together are too much; these are not counted.
        """
        if size_bytes > self._max_held_bytes:
            raise TooMuchToRead(
                f"reading the body takes about {size_bytes} bytes of memory, and {self._max_held_bytes} may be held: "
                "send less at a time, or binary values"
            )
        if self._held_bytes + size_bytes > self._max_held_bytes:
            raise QueueFull(waiting=self._held_bytes, limit=self._max_held_bytes, unit="bytes")
        self._held_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        """Count them no more."""
        self._held_bytes -= size_bytes

    async def read(self, receive: Receive, declared: bytes) -> bytes | None:
        """The whole body, or `None` when the client left before its end.

        Args:
            receive: ASGI's.
            declared: `Content-Length` as it came; empty when it did not.

        Raises:
            TooLarge: It is too long, or `declared` to be; the rest is not read.
            SlowRequest: It came too slowly; the rest is not read.
            QueueFull: All bodies on their way are too much together.
        """
        if declared.isdigit() and (len(declared) > MAX_LENGTH_DIGITS or int(declared) > self.max_body_bytes):
            raise TooLarge(self.max_body_bytes)
        begun = Begun(receive)
        message = begun.message
        if message is not None and message["type"] == "http.request" and not message.get("more_body", False):
            whole: bytes = message.get("body", b"")  # most are there by now: a timer would cost more than reading them
            if len(whole) <= self.max_body_bytes:
                return whole
        chunks: list[bytes] = []
        size_bytes = held_bytes = 0
        try:
            async with asyncio.timeout(self.timeout_s) as reading:
                last_s = reading.when() or 0.0
                while True:
                    message = await begun.receive()
                    if message["type"] == "http.disconnect":
                        return None
                    chunk = message.get("body", b"")
                    size_bytes += len(chunk)
                    if size_bytes > self.max_body_bytes:
                        raise TooLarge(self.max_body_bytes)
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return b"".join(chunks) if len(chunks) > 1 else chunk
                    self.hold(len(chunk))
                    held_bytes += len(chunk)
                    reading.reschedule(last_s + size_bytes / MIN_BODY_BYTES_PER_S)
        except TimeoutError:
            raise SlowRequest(size_bytes) from None
        finally:
            self.release(held_bytes)


class Begun:
    """ASGI's `receive`, whose first message is taken as far as it goes without waiting.

    Attributes:
        message: The first message, if it was there.
    """

    __slots__ = ("_begun", "_receive", "_receiving", "_waits_for", "message")

    def __init__(self, receive: Receive) -> None:
        self.message: Message | None = None
        self._receive = receive
        self._receiving: Awaitable[Message] | None = receive()
        self._begun = self._receiving if isinstance(self._receiving, CoroutineType) else None
        if self._begun is not None:
            try:
                self._waits_for = self._begun.send(None)
            except StopIteration as returned:
                self.message = returned.value

    async def receive(self) -> Message:
        """Every message, from the first on."""
        receiving = self._receiving
        if receiving is None:
            return await self._receive()
        self._receiving = None
        if self.message is not None:
            return self.message
        return await (receiving if self._begun is None else _Rest(self._begun, self._waits_for))


class _Rest:
    """What a coroutine gives that has begun and waits for something."""

    def __init__(self, begun: "CoroutineType[Any, Any, Message]", waits_for: object) -> None:
        self._begun = begun
        self._waits_for = waits_for

    def __await__(self) -> Generator[object, None, Message]:
        try:
            yield self._waits_for
        except BaseException:
            self._begun.close()
            raise
        return (yield from self._begun.__await__())
