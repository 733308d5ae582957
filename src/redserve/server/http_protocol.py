"""uvicorn's httptools protocol with the limits that no ASGI code can set: on headers, on silence, on connections.

    connection ─ too many ─> 503, closed
    headers over the limits ─> 431      headers slower than the limit ─> 408      not HTTP ─> 400
    answers that nobody reads ─> cut off
    shutdown ─ idle connections are heard once more, then closed; a request that has begun is answered
    end of grace ─ what has not come by then is answered 503, and what has not been read is cut off

Plain requests for inference go through the fast door (`fast_door.py`), every other through ASGI. Of those, heads that
came before (`known_heads.py`) and the rest of large bodies (`direct_body.py`) are not parsed.

uvicorn by itself takes 4 MB of headers, waits for their end for ever, and closes at shutdown what has only begun to
send its headers. A refusal goes out only where no earlier answer is on its way on the same connection; there, the
earlier answer is the last one. Bodies are the door's business (`asgi_door.py`).
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle
from uvicorn.server import ServerState

from redserve.errors import (
    BadRequest,
    HeadersTooLarge,
    RedserveError,
    ShuttingDown,
    SlowHeaders,
    TooManyConnections,
)
from redserve.metrics.labels import OTHER
from redserve.server.bodies import MAX_LENGTH_DIGITS
from redserve.server.direct_body import DirectBody
from redserve.server.fast_door import FastDoor, FastRequest
from redserve.server.ignored_upgrade import UpgradeIgnoringProtocol
from redserve.server.known_heads import MAX_KNOWN_BYTES, KnownHead
from redserve.server.reply import error_reply
from redserve.server.request_headers import by_name
from redserve.server.targets import is_open_inference
from redserve.server.unread import Unread

LAST_CALL_S: Final = 0.05
"""At shutdown an idle connection is heard for this long: a request may be in the kernel's buffer already."""

LINGER_S: Final = 1.0
"""After a refusal the connection is still read, and what comes thrown away, for so long."""

MAX_DISCARDED_BYTES: Final = 64 * 2**20
"""Of a body whose request was refused before its end; who sends more is cut off."""

MAX_HEADERS: Final = 256
"""In one request: each costs some 150 bytes besides its own."""

MIN_DIRECT_BYTES: Final = 65_536
"""If more of a body is missing, it is not parsed."""

MAX_UNKNOWN_HEADS: Final = 64
"""After so many in a row each is likely to have a number of its own in it: no more of this connection are looked up."""

MAX_PIPELINED: Final = 128
"""Requests that wait in one connection behind the one being answered; who sends more gets these answers, then the end.
uvicorn has no bound: 33 bytes of a request cost it 5 kB."""


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


class HttpProtocol(UpgradeIgnoringProtocol):
    """One connection.

    Args:
        limits: Its limits.
        door: Takes plain requests for inference; all others are ASGI's.
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
        door: FastDoor,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.limits = limits
        self.door = door
        self.url = b""
        self._fast: FastRequest | None = None  # that is not answered yet
        self._receiving: FastRequest | None = None  # whose body is coming
        self._direct: DirectBody | None = None  # the transport's protocol, while one large body follows another
        self._idle_since_s: float | None = None  # since a fast answer
        self._last_head = b""  # that followed a fast answer
        self._repeated_head = b""  # the same once more, to be remembered
        self._unknown_heads = 0  # in a row
        self._waiting_since_s: float | None = None  # for the headers of a request; None: not for headers
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
        if self._fast is not None:
            self._fast.client_left()
            self._fast = None
        self._direct = None  # which has this: a cycle would leave both to the garbage collector
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
        if (
            self._idle_since_s is not None
            and not self._is_in_body
            and self._unknown_heads < MAX_UNKNOWN_HEADS
            and self._take_known(data)
        ):
            return
        is_all_headers, is_all_body = self._waiting_since_s is not None, self._is_in_body
        self._data_bytes = len(data)
        self._framing_bytes += self._data_bytes
        super().data_received(data)
        if is_all_body and self._is_in_body and self._framing_bytes > self.limits.max_header_bytes:
            self._cut_off_framing()
        elif self._waiting_since_s is None:
            if self._is_in_body:
                if self.cycle is not None and self.cycle.response_complete:
                    self._discard(len(data))
                elif (
                    self._receiving is not None
                    and self._receiving.missing_bytes > MIN_DIRECT_BYTES
                    and self._receiving.keep_alive
                ):
                    self._renew_parser()
                    self._receive_directly(self._receiving)
        else:
            self._header_bytes += len(data) if is_all_headers else 1  # how much of `data` came before is not known
            if self._header_bytes > self.limits.max_header_bytes:
                self.refuse(self._too_large())

    def _take_known(self, data: bytes) -> bool:
        """Begin the request, whose first bytes these are, if its head is known: then the parser never sees it."""
        door = self.door
        head_end = data.find(b"\r\n\r\n", 0, MAX_KNOWN_BYTES) + 4
        text = data[:head_end]
        head = door.heads.by_text.get(text)
        if head is None:
            self._repeated_head = text if text == self._last_head else b""
            self._last_head = text
            self._unknown_heads += 1
            return False
        self._unknown_heads = 0
        target = door.target_of(head.url)
        missing_bytes = head_end + head.length - len(data)
        if (
            (missing_bytes and not missing_bytes > MIN_DIRECT_BYTES)
            or target is None
            or self._is_shutting_down
            or self.flow.write_paused
        ):
            return False
        self._idle_since_s = None
        self._discarded_bytes = 0
        fast = FastRequest(door, target, self, url=head.url, headers=head.headers, length=head.length, keep_alive=True)
        self._fast = fast
        self.cycle = fast
        fast.begin(head.lines)
        if missing_bytes:
            self._receiving = fast
            self._is_in_body = True
            fast.add(memoryview(data)[head_end:])
            if fast.response_complete:
                self._discard(len(data))  # never nothing: from now on it is timed
            self._receive_directly(fast)
        else:
            fast.take(data[head_end:])
        return True

    def body_came(self, size_bytes: int, *, is_all: bool) -> None:
        """Of the body of the fast request, without being parsed; see `direct_body.py`."""
        fast = self._receiving
        if self._is_refused or fast is None:
            return
        fast.came(size_bytes)
        if fast.response_complete:
            self._discard(size_bytes)
        if is_all:
            self.on_message_complete()

    def read_on(self) -> None:
        """Take what comes again; see `direct_body.py`."""
        self._direct = None
        self.transport.set_protocol(self)

    def _receive_directly(self, fast: FastRequest) -> None:
        if self._direct is None:
            self._direct = DirectBody(self)
            self.transport.set_protocol(self._direct)
        self._direct.request = fast

    def _renew_parser(self) -> None:
        """The old one would wait for a body that it is not shown. As uvicorn makes it."""
        self.url = b""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def _cut_off_framing(self) -> None:
        """The body has nothing but framing for too long; the parser keeps all of a trailer until its end."""
        if self.cycle.response_complete:
            self._is_refused = True
            self.transport.close()
        else:
            self.refuse(self._too_large())

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
        names = [name for name, _ in self.headers]
        hosts = names.count(b"host")
        if self._header_bytes + self._data_bytes > limit and self._sent_bytes() > limit:
            self._refusal = self._too_large()
        elif hosts != 1 and (hosts or self.parser.get_http_version() == "1.1"):  # Source: RFC 9112, 3.2
            self._refusal = BadRequest(f"the request has {hosts} Host headers")
        elif b"transfer-encoding" in names and not self._is_chunked():
            self._refusal = BadRequest("of the transfer codings only chunked is known here")
        elif len(self.pipeline) >= MAX_PIPELINED:
            self._refusal = BadRequest(f"more than {MAX_PIPELINED} requests wait in line")
        if self._refusal is not None:
            raise self._refusal
        self._waiting_since_s = None
        self._header_bytes = 0
        self._is_in_body = True
        if not self._enter_fast_door():
            self._begin_cycle()
            if self._is_shutting_down and self.cycle is not None:
                self.cycle.keep_alive = False

    def _sent_bytes(self) -> int:
        """Of the request line and the headers; `: ` and the end of a line are four."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _is_chunked(self) -> bool:
        return all(value.strip().lower() == b"chunked" for name, value in self.headers if name == b"transfer-encoding")

    def _enter_fast_door(self) -> bool:
        """Begin the request there, if it is plain: whatever is unusual about it is left to ASGI."""
        door, cycle = self.door, self.cycle
        repeated_head, self._repeated_head = self._repeated_head, b""
        if self.parser.get_method() != b"POST":
            return False
        target = door.target_of(self.url)
        if target is None:
            return False
        headers = by_name(self.headers)
        length = headers.get(b"content-length", b"")
        if (
            not length.isdigit()
            or len(length) > MAX_LENGTH_DIGITS
            or b"transfer-encoding" in headers
            or b"expect" in headers
            or b"upgrade" in headers
            or self.parser.get_http_version() != "1.1"
            or (cycle is not None and not cycle.response_complete)  # pipelined: uvicorn keeps the order
            or self.flow.write_paused  # it waits until the client has read
        ):
            return False
        self._fast = self._receiving = fast = FastRequest(
            door,
            target,
            self,
            url=self.url,
            headers=headers,
            length=int(length),
            keep_alive=self.parser.should_keep_alive() and not self._is_shutting_down,
        )
        self.cycle = fast
        if repeated_head and fast.keep_alive:
            door.heads.remember(repeated_head, KnownHead(self.url, self.headers, headers, fast.missing_bytes))
        fast.begin(self.headers)
        return True

    def _begin_cycle(self) -> None:
        """As uvicorn does, which has prepared it at the first byte."""
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        self.headers.extend(headers)  # the list is in the scope already
        self.expect_100_continue = (b"expect", b"100-continue") in [
            (name, value.lower()) for name, value in headers if name == b"expect"
        ]
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._framing_bytes = 0
        if self._receiving is not None:
            self._receiving.add(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is complete."""
        fast, self._receiving = self._receiving, None
        if fast is not None:
            self._is_in_body = False
            if self._idle_since_s is not None:  # it was answered before its end
                self._idle_since_s = self.loop.time()
            fast.complete()
        else:
            self._is_in_body = self.is_cut_short
            super().on_message_complete()

    def answered(self) -> None:
        """The fast request has its answer. Idle connections are closed by `check`, without a timer for each answer."""
        self._fast = None
        if self.pipeline:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1
            if self._waiting_since_s is None:  # else the next head has begun: what comes is the rest of it
                self._idle_since_s = self.loop.time()

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
                if self._receiving is not None:
                    self._receiving.fail(error)
                else:
                    cycle.body = _BrokenBody(error)
                    cycle.message_event.set()
            return
        method = self.parser.get_method().decode() if self.url else OTHER
        self.door.red.received(method)
        self.door.red.finished(OTHER, method, "", error.status, error.outcome, error.reason, duration_s)
        path = self.url.partition(b"?")[0].decode("latin-1")
        reply = error_reply(error, is_open_inference=is_open_inference(path))
        head = STATUS_LINE[reply.status] + reply.lines
        self.transport.write(b"%bconnection: close\r\n\r\n%b" % (head, reply.body))
        # Closing at once would reset the connection while the client still sends, and take the answer from it.
        # Source: RFC 9112, 9.6
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)

    def check(self, now_s: float) -> None:
        """Close the connection if it has been reading nothing, sending headers, or nothing at all, for too long.

        Refuse a request whose body has been coming for too long.
        """
        if self._unread.is_too_slow(self.transport.get_write_buffer_size(), now_s=now_s):
            self.transport.abort()  # to close it would wait for the client
            return
        if self._receiving is not None:
            self._receiving.check()
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

    def _too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(f"the headers are longer than {self.limits.max_header_bytes} bytes")


class _BrokenBody:
    """Takes the place of a body that cannot be parsed: whoever reads it gets the mistake instead of half a body."""

    def __init__(self, error: RedserveError) -> None:
        self._error = error

    def __bytes__(self) -> bytes:
        raise self._error
