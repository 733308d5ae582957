"""Heads of requests that have been parsed before, byte for byte the same: they need not be parsed again.

    the head of a plain request for inference, twice in a row on one connection ─ remember ─> KnownHead
    the same bytes, as the first of a message ─ find ─> what the parser would say of them

A client sends the same head again and again, but for the length of the body. What is remembered the parser has accepted
as the whole head of a message, and nothing else: a head that is spelled in any other way than `name: value`, line by
line, is none of these, and neither is one with a secret in it.
"""

from dataclasses import dataclass
from typing import Final

MAX_KNOWN_BYTES: Final = 2_048
"""A longer head is read each time."""

MAX_UNKNOWN_HEADS: Final = 64
"""After so many in a row each is likely to have a number of its own in it: no more of this connection are looked up."""

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
        size_bytes: Of the head itself.
    """

    url: bytes
    lines: list[tuple[bytes, bytes]]
    headers: dict[bytes, bytes]
    length: int
    size_bytes: int


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


class HeadsOfConnection:
    """Those of one connection, one after the other.

    Args:
        known: By all connections of its server.
    """

    def __init__(self, known: KnownHeads) -> None:
        self._known = known
        self._last = b""
        self._repeated = b""
        self._unknown = 0  # in a row

    def find(self, data: bytes) -> KnownHead | None:
        """What the head says with which `data` begins, if it is known."""
        if self._unknown >= MAX_UNKNOWN_HEADS:
            return None
        text = data[: data.find(b"\r\n\r\n", 0, MAX_KNOWN_BYTES) + 4]
        head = self._known.by_text.get(text)
        if head is None:
            self._repeated = text if text == self._last else b""
            self._last = text
            self._unknown += 1
        else:
            self._unknown = 0
        return head

    def take_repeated(self) -> bytes:
        """The head that is being parsed, if it was the one before as well: worth remembering."""
        repeated, self._repeated = self._repeated, b""
        return repeated
