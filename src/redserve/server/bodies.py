"""Request bodies on their way in: how long each may be, how slowly it may come, and how much all hold together.

receive ─ read: 413, 408, 503 ─> body ─ hold, while a thread unpacks and decodes it: 503 ─> queue, which counts itself
"""

import asyncio

from starlette.types import Receive

from redserve.errors import QueueFull, SlowRequest, TooLarge

MIN_BODY_BYTES_PER_S = 1_000
"""A body that comes faster is never too slow. Source: Apache's mod_reqtimeout, which asks for 500."""

MAX_LENGTH_DIGITS = 18
"""A longer `Content-Length` is no size of anything; `int` itself refuses one of 4,300 digits."""


class Bodies:
    """The bodies of one server that are not in a model's queue yet; on its event loop only.

    Args:
        max_body_bytes: A longer body is refused.
        max_held_bytes: All of them together; one that exceeds it is refused.
        timeout_s: A body that has not come by then is refused; each 1,000 bytes of it give a second more.
    """

    def __init__(self, *, max_body_bytes: int, max_held_bytes: int, timeout_s: float) -> None:
        self.max_body_bytes = max_body_bytes
        self._max_held_bytes = max_held_bytes
        self.timeout_s = timeout_s
        self._held_bytes = 0

    def hold(self, size_bytes: int) -> None:
        """Count `size_bytes` until they are released.

        Raises:
            QueueFull: All together are too much; these are not counted.
        """
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
        chunks: list[bytes] = []
        size_bytes = held_bytes = 0
        try:
            async with asyncio.timeout(self.timeout_s) as reading:
                last_s = reading.when() or 0.0
                while True:
                    message = await receive()
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
