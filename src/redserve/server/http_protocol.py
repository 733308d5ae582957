"""One connection of `redserve serve`: plain requests for inference past ASGI, and where it can be, past the parser.

    a head that came before (`known_heads.py`) ─────────> FastRequest ─> service      not parsed
    head ─ parser ─ plain (`fast_door.py`) ─────────────> FastRequest ─> service
                  └ any other ─> ASGI, unchanged (`limited_protocol.py`)
    much of a body is missing ─> DirectBody (`direct_body.py`) takes the connection over until it is there

All within the limits of `limited_protocol.py`. A request is plain only where no answer is on its way before it, so that
the order of the answers is uvicorn's business alone.
"""

import asyncio
from typing import Any, Final, final

import httptools
from uvicorn.config import Config
from uvicorn.server import ServerState

from redserve.errors import RedserveError
from redserve.server.direct_body import DirectBody
from redserve.server.fast_door import FastDoor
from redserve.server.fast_request import FastRequest
from redserve.server.http_limits import HttpLimits
from redserve.server.known_heads import HeadsOfConnection, KnownHead
from redserve.server.limited_protocol import LimitedProtocol
from redserve.server.request_headers import by_name

MIN_DIRECT_BYTES: Final = 65_536
"""If more of a body is missing, it is not parsed."""


@final
class HttpProtocol(LimitedProtocol):
    """One connection.

    Args:
        limits: Its limits.
        door: Takes plain requests for inference; all others are ASGI's.
        config: uvicorn's.
        server_state: uvicorn's.
        app_state: uvicorn's.
    """

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
        super().__init__(config, server_state, app_state, _loop, limits=limits, red=door.red)
        self.door = door
        self._heads = HeadsOfConnection(door.heads)
        self._fast: FastRequest | None = None  # that is not answered yet
        self._receiving: FastRequest | None = None  # whose body is coming
        self._direct: DirectBody | None = None  # the transport's protocol, while one large body follows another

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left."""
        if self._fast is not None:
            self._fast.client_left()
            self._fast = None
        self._direct = None  # which has this: a cycle would leave both to the garbage collector
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Begin the request with these bytes if its head is known; else parse."""
        if self._idle_since_s is not None and not self._is_in_body and not self._is_refused:
            head = self._heads.find(data)
            if head is not None and self._begin_known(head, data):
                return
        super().data_received(data)
        fast = self._receiving
        if (
            fast is not None
            and fast.missing_bytes > MIN_DIRECT_BYTES
            and fast.keep_alive
            and not fast.response_complete
        ):
            self._renew_parser()
            self._receive_directly(fast)

    def _begin_known(self, head: KnownHead, data: bytes) -> bool:
        """Begin the request whose first bytes these are, unless it is better parsed."""
        target = self.door.target_of(head.url)
        missing_bytes = head.size_bytes + head.length - len(data)
        if (
            (missing_bytes and not missing_bytes > MIN_DIRECT_BYTES)
            or target is None
            or self._is_shutting_down
            or self.flow.write_paused
        ):
            return False
        self._idle_since_s = None
        self._discarded_bytes = 0
        self._fast = self.cycle = fast = FastRequest(
            self.door, target, self, url=head.url, headers=head.headers, length=head.length, keep_alive=True
        )
        fast.begin(head.lines)
        if missing_bytes:
            self._receiving = fast
            self._is_in_body = True
            fast.add(memoryview(data)[head.size_bytes :])
            if fast.response_complete:
                self._discard(len(data))  # never nothing: from now on it is timed
            self._receive_directly(fast)
        else:
            fast.take(data[head.size_bytes :])
        return True

    def _begin(self) -> None:
        if not self._begin_fast():
            super()._begin()

    def _begin_fast(self) -> bool:
        """Begin the request past ASGI, if it is plain: whatever is unusual about it is left to ASGI."""
        door, cycle = self.door, self.cycle
        repeated = self._heads.take_repeated()
        if self.parser.get_method() != b"POST":
            return False
        target = door.target_of(self.url)
        if target is None:
            return False
        headers = by_name(self.headers)
        length = door.plain_length(headers)
        if (
            length is None
            or self.parser.get_http_version() != "1.1"
            or (cycle is not None and not cycle.response_complete)  # pipelined: uvicorn keeps the order
            or self.flow.write_paused  # it waits until the client has read
        ):
            return False
        keep_alive = self.parser.should_keep_alive() and not self._is_shutting_down
        self._fast = self._receiving = self.cycle = fast = FastRequest(
            door, target, self, url=self.url, headers=headers, length=length, keep_alive=keep_alive
        )
        if repeated and keep_alive:
            door.heads.remember(repeated, KnownHead(self.url, self.headers, headers, length, len(repeated)))
        fast.begin(self.headers)
        return True

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self._receiving is not None:
            self._framing_bytes = 0
            self._receiving.add(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is complete."""
        fast, self._receiving = self._receiving, None
        if fast is None:
            super().on_message_complete()
            return
        self._is_in_body = False
        if self._idle_since_s is not None:  # it was answered before its end
            self._idle_since_s = self.loop.time()
        fast.complete()

    def answered(self) -> None:
        """The fast request has its answer. Idle connections are closed by `check`, without a timer for each answer."""
        self._fast = None
        if self.pipeline:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1
            if self._waiting_since_s is None:  # else the next head has begun: what comes is the rest of it
                self._idle_since_s = self.loop.time()

    def check(self, now_s: float) -> None:
        """Besides, refuse a request whose body has been coming for too long."""
        super().check(now_s)
        if self._receiving is not None and not self.transport.is_closing():
            self._receiving.check()

    def _fail_body(self, error: RedserveError) -> None:
        if self._receiving is not None:
            self._receiving.fail(error)
        else:
            super()._fail_body(error)

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
