"""Messages between the supervisor and a worker, over a pair of sockets that nobody else has.

A message is a tuple, pickled, behind its length: both ends are one program of one user, one the parent of the other.
"""

import asyncio
import contextlib
import pickle
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("!Q")


class Channel:
    """One end, on the running event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> "Channel":
        """Take over a socket."""
        return cls(*await asyncio.open_connection(sock=end))

    def send(self, *message: Any) -> None:
        """Hand it over; to an end that is gone, in vain."""
        if not self._writer.is_closing():
            self._writer.write(frame(*message))

    async def receive(self) -> tuple[Any, ...] | None:
        """The next message; `None` once the other end is gone."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            message: tuple[Any, ...] = pickle.loads(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, OSError):
            return None
        return message

    async def flush(self) -> None:
        """Wait until the other end has room for all that was sent."""
        with contextlib.suppress(OSError):
            await self._writer.drain()

    def close(self) -> None:
        """Close this end."""
        self._writer.close()


def frame(*message: Any) -> bytes:
    """A message as it is sent."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(data)) + data
