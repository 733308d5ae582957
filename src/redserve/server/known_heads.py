"""Heads of requests that have been parsed before, byte for byte the same: they need not be parsed again.

    the head of a plain request for inference, twice in a row on one connection ─ remember ─> KnownHead
    the same bytes, as the first of a message ─ get ─> what the parser would say of them

A client sends the same head again and again, but for the length of the body. What is remembered the parser has accepted
as the whole head of a message, and nothing else: a head that is spelled in any other way than `name: value`, line by
line, is none of these, and neither is one with a secret in it.
"""

from dataclasses import dataclass
from typing import Final

MAX_KNOWN_BYTES: Final = 2_048
"""A longer head is read each time."""

_MOST_HEADS: Final = 1_024
_MOST_LINES: Final = 32  # of one, since each takes memory besides its text
_SECRET: Final = frozenset({b"authorization", b"cookie", b"proxy-authorization", b"x-api-key"})


@dataclass(frozen=True, slots=True)
class KnownHead:
    """What a head says.

    Attributes:
        url: As it was sent.
        lines: Its headers, names in lower case.
        headers: By name.
        length: Of the body.
    """

    url: bytes
    lines: list[tuple[bytes, bytes]]
    headers: dict[bytes, bytes]
    length: int


class KnownHeads:
    """Those of one server.

    Attributes:
        by_text: Each by its bytes, up to the body.
    """

    def __init__(self) -> None:
        self.by_text: dict[bytes, KnownHead] = {}

    def remember(self, text: bytes, head: KnownHead) -> None:
        """Keep `head`, which the parser has just read, if `text` is just that; all are forgotten when they are many."""
        if len(head.lines) > _MOST_LINES or not _SECRET.isdisjoint(head.headers):
            return
        plain = b"".join([b"POST %b HTTP/1.1\r\n" % head.url, *[b"%b: %b\r\n" % line for line in head.lines], b"\r\n"])
        if text.lower() != plain.lower():
            return
        if len(self.by_text) >= _MOST_HEADS:
            self.by_text.clear()
        self.by_text[text] = head
