"""The rest of a large body, from the kernel straight into the memory that is decoded: past the parser, uncopied.

    head, and what came with it ── HttpProtocol ──> FastRequest.take_directly? ── DirectBody is the transport's protocol
    bytes ── get_buffer: the memory that is still empty, no more ──> buffer_updated ──> HttpProtocol.body_came
    the last ──> HttpProtocol is the transport's protocol again, with a fresh parser for the next request

A parser hands the body out in copies, which are copied once more into one. Its length is known, so that nothing in it
has to be looked at, and not a byte of the next request is ever read here.
"""

import asyncio
from typing import Protocol

from redserve.server.fast_door import FastRequest

_SCRATCH_BYTES = 65_536


class Host(Protocol):
    """What the body needs of its connection."""

    def body_came(self, size_bytes: int, *, is_all: bool) -> None:
        """So many bytes more are where they belong."""

    def pause_writing(self) -> None:
        """As asyncio's."""

    def resume_writing(self) -> None:
        """As asyncio's."""

    def eof_received(self) -> None:
        """As asyncio's."""

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio's."""


class DirectBody(asyncio.BufferedProtocol):
    """Stands in for a connection's protocol until the body is complete.

    Args:
        host: The connection.
        request: Whose body it is. Once it is answered, what still comes is thrown away.
    """

    def __init__(self, host: Host, request: FastRequest) -> None:
        self._host = host
        self._request = request
        self._missing_bytes = request.missing_bytes

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: never beyond the end of the body."""
        return self._request.empty() or memoryview(bytearray(min(self._missing_bytes, _SCRATCH_BYTES) or 1))

    def buffer_updated(self, nbytes: int) -> None:
        """They have come."""
        self._missing_bytes -= nbytes
        self._host.body_came(nbytes, is_all=not self._missing_bytes)

    def pause_writing(self) -> None:
        """An early answer waits for the client."""
        self._host.pause_writing()

    def resume_writing(self) -> None:
        """It waits no more."""
        self._host.resume_writing()

    def eof_received(self) -> None:
        """The client sends no more."""
        self._host.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left."""
        self._host.connection_lost(exc)
