"""What one connection may ask for, and what is wrong with the head of a request."""

from dataclasses import dataclass
from typing import Final

from redserve.errors import BadRequest, HeadersTooLarge

MAX_HEADERS: Final = 256
"""In one request: each costs some 150 bytes besides its own."""

MAX_PIPELINED: Final = 128
"""Requests that wait in one connection behind the one being answered; who sends more gets these answers, then the end.
uvicorn has no bound: 33 bytes of a request cost it 5 kB."""

MAX_DISCARDED_BYTES: Final = 64 * 2**20
"""Of a body whose request was refused before its end; who sends more is cut off."""


@dataclass(frozen=True, kw_only=True)
class HttpLimits:
    """What a connection may ask for.

    Attributes:
        max_header_bytes: Of the request line and all headers.
        header_timeout_s: From the first byte of a request, or from the connection, to the end of its headers.
        write_timeout_s: For a client to take answers that wait for it, and a second more for each 1,000 bytes it takes.
        max_connections: Open at once.
    """

    max_header_bytes: int = 65_536
    header_timeout_s: float = 10.0
    write_timeout_s: float = 20.0
    max_connections: int = 4_096

    def too_large(self) -> HeadersTooLarge:
        """The error of headers that are longer than `max_header_bytes`."""
        return HeadersTooLarge(f"the headers are longer than {self.max_header_bytes} bytes")


def head_bytes(url: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    """Of the request line and the headers; `: ` and the end of a line are four."""
    return len(url) + sum(len(name) + len(value) + 4 for name, value in headers)


def head_mistake(headers: list[tuple[bytes, bytes]], *, version: str) -> BadRequest | None:
    """What the parser lets pass, and we do not; names are in lower case."""
    hosts = [name for name, _ in headers].count(b"host")
    if hosts != 1 and (hosts or version == "1.1"):  # Source: RFC 9112, 3.2
        return BadRequest(f"the request has {hosts} Host headers")
    if any(value.strip().lower() != b"chunked" for name, value in headers if name == b"transfer-encoding"):
        return BadRequest("of the transfer codings only chunked is known here")
    return None
