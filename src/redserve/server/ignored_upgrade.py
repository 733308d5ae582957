"""Requests that ask for another protocol, and are answered in this one: `Upgrade: h2c`, which Java's client sends.

    head ── parser ──> upgrade? ends the request here
    body ── a second parser, after a made-up head with the same framing ──> the same request

httptools ends such a request at its headers and leaves its body to the other protocol; uvicorn drops the body then.
A server may ignore the wish (RFC 9110, 7.8), but not the body. WebSocket is no exception: there is none here, and its
connections would be without the limits of ours.
"""

import sys

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_FRAMING = (b"content-length", b"transfer-encoding")


class UpgradeIgnoringProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which stays with HTTP/1.1."""

    _received = b""

    @property
    def is_cut_short(self) -> bool:
        """Whether the parser ends the request at its headers, though a body follows."""
        return self.parser.should_upgrade() and any(name in _FRAMING for name, _ in self.headers)

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self._received = data
        super().data_received(data)

    def on_message_complete(self) -> None:
        """The request is complete, unless it was only cut short."""
        if not self.is_cut_short:
            super().on_message_complete()

    def _should_upgrade(self) -> bool:
        return False

    def _unsupported_upgrade_warning(self) -> None:
        """Called while the parser's `HttpParserUpgrade` is handled, which says how far it has come."""
        stopped = sys.exc_info()[1]
        rest = self._received[stopped.args[0] :] if stopped is not None else b""
        if self.is_cut_short:
            framing = [b"%s: %s\r\n" % header for header in self.headers if header[0] in _FRAMING]
            self.parser = httptools.HttpRequestParser(_BehindHead(self))
            rest = b"POST / HTTP/1.1\r\n" + b"".join(framing) + b"\r\n" + rest
        if rest:
            self.data_received(rest)


class _BehindHead:
    """What the second parser tells, without the head that was made up for it."""

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self._protocol = protocol
        self._is_made_up = True
        self.on_body = protocol.on_body
        self.on_message_complete = protocol.on_message_complete

    def on_message_begin(self) -> None:
        if not self._is_made_up:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._is_made_up:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_made_up:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._is_made_up:
            self._protocol.on_headers_complete()
        self._is_made_up = False
