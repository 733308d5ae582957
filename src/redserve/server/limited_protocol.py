"""uvicorn's httptools protocol with the limits that no ASGI code can set: on headers, on silence, on connections.

    connection ─ too many ─> 503, closed
    headers over the limits ─> 431      headers slower than the limit ─> 408      not HTTP ─> 400
    answers that nobody reads ─> cut off
    shutdown ─ idle connections are heard once more, then closed; a request that has begun is answered
    end of grace ─ what has not come by then is answered 503, and what has not been read is cut off

uvicorn by itself takes 4 MB of headers, waits for their end for ever, and closes at shutdown what has only begun to
send its headers. A refusal goes out only where no earlier answer is on its way on the same connection; there, the
earlier answer is the last one. Bodies are the door's business (`asgi_door.py`).
"""

import asyncio
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle
from uvicorn.server import ServerState

from redserve.errors import BadRequest, HeadersTooLarge, RedserveError, ShuttingDown, SlowHeaders, TooManyConnections
from redserve.metrics import REDMetrics
from redserve.metrics.labels import OTHER
from redserve.server.http_limits import (
    MAX_DISCARDED_BYTES,
    MAX_HEADERS,
    MAX_PIPELINED,
    HttpLimits,
    head_bytes,
    head_mistake,
)
from redserve.server.ignored_upgrade import UpgradeIgnoringProtocol
from redserve.server.reply import error_reply
from redserve.server.targets import is_open_inference
from redserve.server.unread import Unread

LAST_CALL_S: Final = 0.05
"""At shutdown an idle connection is heard for this long: a request may be in the kernel's buffer already."""

LINGER_S: Final = 1.0
"""After a refusal the connection is still read, and what comes thrown away, for so long."""


class LimitedProtocol(UpgradeIgnoringProtocol):
    """One connection, within its limits; all of its requests are ASGI's.

    Args:
        limits: Its limits.
        red: Counts what is refused here.
        config: uvicorn's.
        server_state: uvicorn's.
        app_state: uvicorn's.
    """

    cycle: Any  # the request that came last: uvicorn's or a `FastRequest`
    headers: Any  # of that request: pairs, the names in small letters

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: HttpLimits,
        red: REDMetrics,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.limits = limits
        self.url = b""
        self._red = red
        self._waiting_since_s: float | None = None  # for the headers of a request; None: not for headers
        self._idle_since_s: float | None = None  # since an answer for which uvicorn has set no timer
        self._header_bytes = 0
        self._data_bytes = 0  # of what is being parsed
        self._is_in_body = False
        self._framing_bytes = 0  # of a body, since its last bytes: chunk extensions, trailers
        self._refusal: RedserveError | None = None
        self._discarded_bytes = 0
        self._discarding_since_s = 0.0
        self._is_refused = False
        self._is_shutting_down = False
        self._answering: RequestResponseCycle | None = None
        self._unread = Unread(limits.write_timeout_s)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, if there is room for one more."""
        super().connection_made(transport)
        self._waiting_since_s = self.loop.time()
        if len(self.connections) > self.limits.max_connections:
            self.refuse(TooManyConnections())

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left: no request of this connection has anybody to answer, those that wait in line included."""
        for cycle in (self._answering, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        """Parse, within the limits."""
        if self._is_refused:
            return
        is_all_headers, is_all_body = self._waiting_since_s is not None, self._is_in_body
        self._data_bytes = len(data)
        self._framing_bytes += self._data_bytes
        super().data_received(data)
        if is_all_body and self._is_in_body and self._framing_bytes > self.limits.max_header_bytes:
            self._cut_off_framing()
        elif self._waiting_since_s is None:
            if self._is_in_body and self.cycle is not None and self.cycle.response_complete:
                self._discard(len(data))
        else:
            self._header_bytes += len(data) if is_all_headers else 1  # how much of `data` came before is not known
            if self._header_bytes > self.limits.max_header_bytes:
                self.refuse(self.limits.too_large())

    def _cut_off_framing(self) -> None:
        """The body has nothing but framing for too long; the parser keeps all of a trailer until its end."""
        if self.cycle.response_complete:
            self._is_refused = True
            self.transport.close()
        else:
            self.refuse(self.limits.too_large())

    def _discard(self, size_bytes: int) -> None:
        """The rest of a body that was answered early: uvicorn throws it away, we see that it comes to an end."""
        if not self._discarded_bytes:
            self._discarding_since_s = self.loop.time()
        self._discarded_bytes += size_bytes
        if self._discarded_bytes > MAX_DISCARDED_BYTES:
            self._is_refused = True
            self.transport.close()

    def on_message_begin(self) -> None:
        """The first byte of a request: from here on its headers are timed."""
        self.url = b""
        self.headers = []
        self._waiting_since_s = self.loop.time()
        self._idle_since_s = None
        self._header_bytes = self._discarded_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. Trailers, which come behind a body, are dropped: nobody here reads them (RFC 9110, 6.5.1)."""
        if self._is_in_body:
            return
        if len(self.headers) >= MAX_HEADERS:
            self._refusal = HeadersTooLarge(f"there are more than {MAX_HEADERS} headers")
            raise self._refusal  # ends the parsing; `send_400_response` is called for it
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Begin the request, unless its headers are too large or not to be understood."""
        limit = self.limits.max_header_bytes
        if self._header_bytes + self._data_bytes > limit and head_bytes(self.url, self.headers) > limit:
            self._refusal = self.limits.too_large()
        else:
            self._refusal = head_mistake(self.headers, version=self.parser.get_http_version())
        if self._refusal is None and len(self.pipeline) >= MAX_PIPELINED:
            self._refusal = BadRequest(f"more than {MAX_PIPELINED} requests wait in line")
        if self._refusal is not None:
            raise self._refusal
        self._waiting_since_s = None
        self._header_bytes = 0
        self._is_in_body = True
        self._begin()

    def _begin(self) -> None:
        """As uvicorn does, which has prepared it at the first byte."""
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        self.headers.extend(headers)  # the list is in the scope already
        self.expect_100_continue = (b"expect", b"100-continue") in [
            (name, value.lower()) for name, value in headers if name == b"expect"
        ]
        super().on_headers_complete()
        if self._is_shutting_down and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._framing_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is complete."""
        self._is_in_body = self.is_cut_short
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what could not be parsed."""
        self.refuse(self._refusal or BadRequest(msg))

    def refuse(self, error: RedserveError) -> None:
        """Answer with an error and close; where an answer is still on its way, it is the last one instead."""
        cycle = self.cycle
        is_within_body = self._waiting_since_s is None
        duration_s = 0.0 if self._waiting_since_s is None else self.loop.time() - self._waiting_since_s
        self._is_refused = True
        self._waiting_since_s = None
        if cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False
            if is_within_body and cycle.more_body:  # its own body: let whoever reads it answer
                self._fail_body(error)
            return
        method = self.parser.get_method().decode() if self.url else OTHER
        self._red.received(method)
        self._red.finished(OTHER, method, "", error.status, error.outcome, error.reason, duration_s)
        path = self.url.partition(b"?")[0].decode("latin-1")
        reply = error_reply(error, is_open_inference=is_open_inference(path))
        head = STATUS_LINE[reply.status] + reply.lines
        self.transport.write(b"%bconnection: close\r\n\r\n%b" % (head, reply.body))
        # Closing at once would reset the connection while the client still sends, and take the answer from it.
        # Source: RFC 9112, 9.6
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)

    def _fail_body(self, error: RedserveError) -> None:
        self.cycle.body = _BrokenBody(error)
        self.cycle.message_event.set()

    def check(self, now_s: float) -> None:
        """Close the connection if it has been reading nothing, sending headers, or nothing at all, for too long."""
        if self._unread.is_too_slow(self.transport.get_write_buffer_size(), now_s=now_s):
            self.transport.abort()  # to close it would wait for the client
            return
        if self._idle_since_s is not None and not self._is_in_body:
            if now_s - self._idle_since_s > self.timeout_keep_alive:
                self.transport.close()
            return
        since_s = self._discarding_since_s if self._discarded_bytes else self._waiting_since_s
        if since_s is None or now_s - since_s < self.limits.header_timeout_s or self.transport.is_closing():
            return
        if self._header_bytes:
            self.refuse(SlowHeaders(self.limits.header_timeout_s))
        else:
            self.transport.close()

    def shutdown(self) -> None:
        """Answer what has begun, then close; called by the server at its end."""
        self._is_shutting_down = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        elif not self._header_bytes:
            self.loop.call_later(LAST_CALL_S, self._close_if_idle)

    def end_grace(self) -> bool:
        """Wait for the client no more: for its headers, its body, or that it reads. Called by the server at its end.

        Returns:
            Whether a request is still unanswered, other than by a client that does not read.
        """
        if self._is_refused:
            return False
        if self.transport.get_write_buffer_size():
            self.transport.abort()
            return False
        is_unanswered = self.cycle is not None and not self.cycle.response_complete
        if self._header_bytes or (is_unanswered and self.cycle.more_body):
            self.refuse(ShuttingDown())
        return is_unanswered

    def _close_if_idle(self) -> None:
        is_idle = not self._header_bytes and (self.cycle is None or self.cycle.response_complete)
        if is_idle and not self.transport.is_closing():
            self.transport.close()


class _BrokenBody:
    """Takes the place of a body that cannot be parsed: whoever reads it gets the mistake instead of half a body."""

    def __init__(self, error: RedserveError) -> None:
        self._error = error

    def __bytes__(self) -> bytes:
        raise self._error
