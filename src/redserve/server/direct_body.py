"""Large bodies, from the kernel straight into the memory that is decoded: past the parser, uncopied.

    head, and what came with it ── HttpProtocol ─ much is missing ─> DirectBody is the transport's protocol
    bytes ── get_buffer: the memory that is still empty, no more ──> buffer_updated ──> HttpProtocol.body_came
    behind the last ── get_buffer: room for a head ──> buffer_updated ──> HttpProtocol.data_received
                       no large body follows ──> HttpProtocol is the transport's protocol again

A parser hands the body out in copies, which are copied once more into one. Its length is known, so that nothing in it
has to be looked at, and not a byte of the next request is ever read here. Who has sent one large body is likely to send
the next: changing the protocol makes the transport stop and start reading, and with a long read of the next head came
much of its body, to be copied.
"""

import asyncio
from typing import Protocol

from redserve.server.fast_request import FastRequest
from redserve.server.known_heads import MAX_KNOWN_BYTES

_SCRATCH_BYTES = 65_536


class Host(Protocol):
    """What the body needs of its connection."""

    def data_received(self, data: bytes) -> None:
        """As asyncio's."""

    def read_on(self) -> None:
        """No large body has begun: the transport is to hand what comes to the connection itself."""

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
    """Stands in for a connection's protocol while one large body follows another.

    Args:
        host: The connection.

    Attributes:
        request: Whose body is coming; once it is answered, what still comes is thrown away. `None` between two.
    """

    def __init__(self, host: Host) -> None:
        self.request: FastRequest | None = None
        self._host = host
        self._head = memoryview(bytearray(MAX_KNOWN_BYTES))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: never beyond the end of the body."""
        request = self.request
        if request is None:
            return self._head
        return request.empty() or memoryview(bytearray(min(request.missing_bytes, _SCRATCH_BYTES) or 1))

    def buffer_updated(self, nbytes: int) -> None:
        """They have come."""
        request = self.request
        if request is None:
            self._host.data_received(bytes(self._head[:nbytes]))
            if self.request is None:
                self._host.read_on()
            return
        is_all = nbytes == request.missing_bytes
        if is_all:
            self.request = None
        self._host.body_came(nbytes, is_all=is_all)

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
