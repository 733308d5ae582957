"""One request through the fast door (`fast_door.py`): its body as it comes, the one answer, its count and its log."""

import asyncio
from time import perf_counter
from typing import Final, Protocol

import numpy as np
from uvicorn.server import ServerState

from redserve.errors import RedserveError, SlowRequest, TooLarge
from redserve.protocol import Body
from redserve.server.bodies import MIN_BODY_BYTES_PER_S
from redserve.server.call import Call, logger
from redserve.server.fast_door import FastDoor
from redserve.server.logs import log_access
from redserve.server.reply import Reply
from redserve.server.targets import Target

_ONE_WRITE_BYTES: Final = 65_536  # a longer body is not copied behind its head
_ONE_MEMORY_BYTES: Final = 65_536  # a longer body has its memory from the first, which costs nothing until written


class Connection(Protocol):
    """What a request needs of its connection."""

    transport: asyncio.Transport
    server_state: ServerState
    client: tuple[str, int] | None

    def answered(self) -> None:
        """The answer has been written; the next request may be answered."""


class FastRequest:
    """One request, from the end of its headers to its answer; to the connection, what uvicorn calls a cycle.

    Attributes:
        keep_alive: Whether the connection outlives the answer.
        missing_bytes: Of its body.
        response_complete: Whether it was answered, or the client has left.
        more_body: Whether its body is still coming.
        message_event: Set by the connection.
        disconnected: Set by the connection.
        body: Never looked at.
    """

    __slots__ = (
        "_arrived_s",
        "_call",
        "_connection",
        "_door",
        "_headers",
        "_held_bytes",
        "_length",
        "_memory",
        "_pieces",
        "_target",
        "_url",
        "body",
        "disconnected",
        "keep_alive",
        "message_event",
        "missing_bytes",
        "more_body",
        "response_complete",
    )

    def __init__(
        self,
        door: FastDoor,
        target: Target,
        connection: Connection,
        *,
        url: bytes,
        headers: dict[bytes, bytes],
        length: int,
        keep_alive: bool,
    ) -> None:
        self._arrived_s = perf_counter()
        self._door = door
        self._target = target
        self._connection = connection
        self._url = url
        self._headers = headers
        self._length = self.missing_bytes = length
        self._pieces: list[Body] = []
        self._memory: memoryview | None = None
        self._held_bytes = 0
        self._call: Call | None = None
        self.keep_alive = keep_alive
        self.message_event = _Nobody
        self.response_complete = self.disconnected = False
        self.more_body = True
        door.red.received("POST")

    def begin(self, sent_headers: list[tuple[bytes, bytes]]) -> None:
        """The headers are complete: refuse the request where they suffice for that."""
        door = self._door
        refused = door.refusal(self._url, self._target, sent_headers)
        if refused is not None:
            self._answer(refused, model="")
        elif self._length > door.bodies.max_body_bytes:
            self.fail(TooLarge(door.bodies.max_body_bytes))

    def add(self, piece: Body) -> None:
        """Take a piece of the body."""
        if not self.response_complete:
            if self._length > _ONE_MEMORY_BYTES:
                self.empty()[: len(piece)] = piece
            else:
                self._pieces.append(piece)
        self.came(len(piece))

    def empty(self) -> memoryview:
        """Where the rest of the body belongs; empty once it is answered, whatever is missing.

        The memory is new, so what is not written yet takes none.
        """
        if self.response_complete:
            return memoryview(b"")
        if self._memory is None:
            self._memory = np.empty(self._length, np.uint8).data
        return self._memory[self._length - self.missing_bytes :]

    def came(self, size_bytes: int) -> None:
        """So many bytes more are where they belong, or are thrown away because it is answered."""
        self.missing_bytes -= size_bytes
        if self.missing_bytes > 0 and not self.response_complete:
            try:
                self._door.bodies.hold(size_bytes)
            except RedserveError as error:
                self.fail(error)
            else:
                self._held_bytes += size_bytes

    def check(self) -> None:
        """Refuse it if its body has not come by now."""
        size_bytes = self._length - self.missing_bytes
        allowed_s = self._door.bodies.timeout_s + size_bytes / MIN_BODY_BYTES_PER_S
        if not self.response_complete and perf_counter() - self._arrived_s > allowed_s:
            self.fail(SlowRequest(size_bytes))

    def complete(self) -> None:
        """The body is complete."""
        pieces = self._pieces
        self.take(self._memory or (pieces[0] if len(pieces) == 1 else b"".join(pieces)))

    def take(self, body: Body) -> None:
        """This is the body."""
        self.more_body = False
        if self.response_complete:
            return
        self._pieces.clear()
        if self._memory is not None or self._held_bytes:
            self._let_go()
        try:
            call = self._door.infer(self._target, self._headers, body, self.answer, self._arrived_s)
            if not self.response_complete:
                self._call = call
        except Exception:  # not of the client's making: whatever is, the service answers
            logger.exception("a request failed unexpectedly")
            self.fail(RedserveError("the server failed on this request"))

    def client_left(self) -> None:
        """Nobody waits for the answer."""
        self.response_complete = True
        self._let_go()
        self._pieces.clear()
        call, self._call = self._call, None  # which has the body; this waits for the garbage collector
        if call is not None:
            call.cancel()
        model = self._door.service.model_label(self._target.model)
        self._end(499, "cancelled", "client_disconnected", model, 0)

    def answer(self, reply: Reply) -> None:
        """Send the service's answer."""
        self._answer(reply, reply.model or self._door.service.model_label(self._target.model))

    def fail(self, error: RedserveError) -> None:
        """Refuse it."""
        self.answer(self._door.service.terms.refusal(error, is_open_inference=self._target.is_open_inference))

    def _answer(self, reply: Reply, model: str) -> None:
        if self.response_complete:
            return
        self.response_complete = True
        self._call = None  # which has this: a cycle would leave both to the garbage collector
        connection, body, error = self._connection, reply.body, reply.error
        if error is None:
            self._end(reply.status, "ok", "", model, len(body))
        else:
            self._let_go()
            self._end(reply.status, error.outcome, error.reason, model, len(body))
            if isinstance(error, SlowRequest):
                self.keep_alive = False
        head = self._door.head_of(reply.status, connection.server_state.default_headers)
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        transport = connection.transport
        if len(body) <= _ONE_WRITE_BYTES:
            transport.write(b"%b%b%b%b" % (head, reply.lines, end, body))
        else:
            transport.write(b"%b%b%b" % (head, reply.lines, end))
            transport.write(body)
        if not self.keep_alive:
            transport.close()
        connection.answered()

    def _end(self, status: int, outcome: str, reason: str, model: str, sent_bytes: int) -> None:
        """Count, and log; before the answer is handed over."""
        duration_s = perf_counter() - self._arrived_s
        self._door.red.finished(self._target.route, "POST", model, status, outcome, reason, duration_s)
        if self._door.has_access_log:
            log_access(self._connection.client, "POST", self._url.decode("latin-1"), status, sent_bytes, duration_s)

    def _let_go(self) -> None:
        """The body is here, or of no interest any more."""
        self._door.bodies.release(self._held_bytes)
        self._held_bytes = 0
        self._memory = None


class _Nobody:
    """Waits for messages: in the place of what uvicorn sets when a client leaves."""

    @staticmethod
    def set() -> None:
        """Nothing."""
