"""One inference request, from its bytes to its answer: unpack, decode, admit, batch, encode, answer exactly once.

    Call(bytes) -> decompress -> codec.decode -> model.infer -> batch -> codec.encode -> compress -> Reply(bytes)

No web framework. Written with callbacks: `answer(reply)` is called exactly once, on the event loop, unless the call is
cancelled first; a future and a task per request cost more than a small model does. Large bodies are weighed and decoded
in a thread, and so is everything compressed, since a small body may unfold into a large one; large answers in others.
"""

import asyncio
import logging
from collections.abc import Callable
from time import perf_counter
from typing import Final, TypeVar

from redserve.batching import Answer, Ticket
from redserve.batching.waiting import NEVER_S
from redserve.engine.tensors import Array
from redserve.errors import BadRequest, ModelError, RedserveError
from redserve.protocol import Body, Codec, Encoded, InferRequest, choose_encoding, compress, decompress
from redserve.server.deadlines import HEADER as TIMEOUT_MS
from redserve.server.endpoint import Endpoint
from redserve.server.reply import Reply, lines_of
from redserve.server.terms import Terms

logger = logging.getLogger("redserve.server")

T = TypeVar("T")

LARGE_BYTES: Final = 65_536
"""More is parsed, or written, in a thread: 1.6 MB of JSON take 8 ms. Source: measured, one core."""

_LINES: Final = (
    b"content-type: %b\r\ncontent-length: %d\r\nserver-timing: queue;dur=%.3f, compute;dur=%.3f, total;dur=%.3f\r\n"
)

MIN_COMPRESSED_BYTES: Final = 1_024
"""A smaller answer fits one packet as it is."""


class Call:
    """One request that is being answered.

    Attributes:
        model: The model it goes to; empty until it is found.
        deadline_s: When its answer is due.
    """

    __slots__ = (
        "_answer",
        "_arrived_s",
        "_cancelled",
        "_codec",
        "_endpoint",
        "_headers",
        "_is_open_inference",
        "_request",
        "_terms",
        "_ticket",
        "deadline_s",
        "model",
    )

    def __init__(
        self,
        terms: Terms,
        is_open_inference: bool,
        headers: dict[bytes, bytes],
        answer: Callable[[Reply], None],
        arrived_s: float,
    ) -> None:
        self._terms = terms
        self._is_open_inference = is_open_inference
        self._headers = headers
        self._answer = answer
        self._arrived_s = arrived_s
        self._cancelled = False
        self._ticket: Ticket | None = None
        self._endpoint: Endpoint | None = None
        self.model = ""
        self.deadline_s = NEVER_S

    def begin(self, endpoint: Endpoint, codec: Codec, body: Body) -> None:
        """Unpack, decode and queue."""
        self._endpoint = endpoint
        self._codec = codec
        encoding = self._headers.get(b"content-encoding")
        if not encoding:
            self._decode(endpoint, body)
            return
        limit_bytes = self._terms.bodies.max_body_bytes
        self._make_in_thread(
            lambda: decompress(body, encoding, limit_bytes=limit_bytes),
            reads_bytes=len(body),
            then=lambda plain: self._decode(endpoint, plain),
        )

    def cancel(self) -> None:
        """The client left: what still waits leaves the queue, and `answer` is not called."""
        self._cancelled = True
        if self._ticket is not None:
            self._ticket.cancel()

    def fail(self, error: RedserveError) -> None:
        """Answer with `error`."""
        if self._endpoint is not None:
            self._endpoint.statistics.failed(perf_counter() - self._arrived_s)
        self._reply(self._terms.refusal(error, model=self.model, is_open_inference=self._is_open_inference))

    def _decode(self, endpoint: Endpoint, body: Body) -> None:
        codec = self._codec
        json_length = self._headers.get(b"inference-header-content-length", b"")
        if len(body) > LARGE_BYTES and codec.parsed_bytes(body, json_length=json_length) > LARGE_BYTES:
            self._decode_large(endpoint, body, json_length)
            return
        try:
            request = codec.decode(body, json_length=json_length)
        except RedserveError as error:
            self.fail(error)
        except Exception as error:
            self._crash(error)
        else:
            self._queue(endpoint, request)

    def _decode_large(self, endpoint: Endpoint, body: Body, json_length: bytes) -> None:
        """The same, once it is known what that will make."""
        codec = self._codec
        most_rows = endpoint.model.policy.max_queue_rows
        self._make_in_thread(
            lambda: codec.weigh(body, json_length=json_length, most_rows=most_rows),
            reads_bytes=len(body),
            then=lambda made_bytes: self._make_in_thread(
                lambda: codec.decode(body, json_length=json_length),
                reads_bytes=len(body) + made_bytes,
                then=lambda request: self._queue(endpoint, request),
            ),
        )

    def _queue(self, endpoint: Endpoint, request: InferRequest) -> None:
        self._request = request
        if request.timeout_s is not None:
            self.deadline_s = self._terms.deadlines.deadline_s(
                self._headers.get(TIMEOUT_MS), arrived_s=self._arrived_s, timeout_s=request.timeout_s
            )
        try:
            self._ticket = endpoint.entrance.infer(
                request.tensors,
                self._ran,
                deadline_s=self.deadline_s,
                finite=not self._is_open_inference,
                is_checked=request.is_checked,
            )
        except BadRequest as error:
            where = error.where and self._codec.place(request, error.where)
            self.fail(BadRequest(str(error), where=where))
        except RedserveError as error:
            self.fail(error)

    def _ran(self, result: Answer[list[Array]]) -> None:
        outputs = result.result
        if result.error is not None or outputs is None:
            self.fail(result.error or ModelError("the model gave no outputs"))
            return
        encoding = b""
        if self._is_open_inference and b"accept-encoding" in self._headers:
            encoding = choose_encoding(self._headers[b"accept-encoding"])
        codec = self._codec
        # Compressing touches every byte, binary ones too.
        size_bytes = (
            sum([output.nbytes for output in outputs]) if encoding else codec.written_bytes(self._request, outputs)
        )
        if size_bytes > LARGE_BYTES:
            self._encode_large(outputs, encoding, result)
            return
        try:
            encoded = codec.encode(self._request, outputs)
            if encoding:
                encoded = _compressed(encoded, encoding)
        except RedserveError as error:
            self.fail(error)
        except Exception as error:  # an engine of the user's may answer with what no codec can write
            self._crash(error)
        else:
            self._succeed(encoded, result)

    def _encode_large(self, outputs: list[Array], encoding: bytes, result: Answer[list[Array]]) -> None:
        codec, request = self._codec, self._request
        self._make_in_thread(
            lambda: _compressed(codec.encode(request, outputs), encoding),
            then=lambda encoded: self._succeed(encoded, result),
        )

    def _make_in_thread(self, make: Callable[[], T], *, then: Callable[[T], None], reads_bytes: int = 0) -> None:
        """Go on with what `make` makes, which is much work.

        Args:
            make: Makes it.
            then: Gets it, on the loop.
            reads_bytes: It reads a body, which is done in one thread for all; held in memory until it is done, and
                refused where all such bytes are too many.
        """

        def unless_left() -> T:
            if self._cancelled:
                raise RedserveError("the client left before its turn")
            return make()

        def is_made(future: asyncio.Future[T]) -> None:
            bodies.release(reads_bytes)
            try:
                go_on(future)
            finally:
                if model is not None:
                    model.let_go()

        def go_on(future: asyncio.Future[T]) -> None:
            if future.cancelled():
                return
            error = future.exception()
            if self._cancelled:
                return
            if error is None:
                then(future.result())
            elif isinstance(error, RedserveError):
                self.fail(error)
            else:
                self._crash(error)

        bodies = self._terms.bodies
        try:
            bodies.hold(reads_bytes)
        except RedserveError as error:
            self.fail(error)
            return
        future = asyncio.get_running_loop().run_in_executor(bodies.reader if reads_bytes else None, unless_left)
        model = self._endpoint.model if self._endpoint is not None else None
        if model is not None:  # which another version may replace meanwhile
            model.hold()
        future.add_done_callback(is_made)

    def _succeed(self, encoded: Encoded, result: Answer[list[Array]]) -> None:
        now_s = perf_counter()
        total_s = now_s - self._arrived_s
        body, queue_s, compute_s = encoded.body, result.queue_s, result.compute_s
        lines = _LINES % (encoded.content_type, len(body), 1000 * queue_s, 1000 * compute_s, 1000 * total_s)
        if encoded.headers:
            lines += lines_of(encoded.headers)
        if self._endpoint is not None:
            self._endpoint.statistics.succeeded(total_s, queue_s=queue_s, compute_s=compute_s)
        if now_s > self.deadline_s and not self._cancelled:
            self._terms.missed(self.model)
        if not self._cancelled:
            self._answer(Reply(200, lines, body, self.model))

    def _crash(self, error: BaseException) -> None:
        logger.error("a request failed unexpectedly", extra={"model": self.model}, exc_info=error)
        self.fail(RedserveError("the server failed on this request"))

    def _reply(self, reply: Reply) -> None:
        if not self._cancelled:
            self._answer(reply)


def _compressed(answer: Encoded, encoding: bytes) -> Encoded:
    """`answer` in `encoding`, empty for none; `Inference-Header-Content-Length` goes on counting what it is before."""
    if not encoding or len(answer.body) < MIN_COMPRESSED_BYTES:
        return answer
    headers = (*answer.headers, (b"content-encoding", encoding), (b"vary", b"accept-encoding"))
    return Encoded(compress(answer.body, encoding), answer.content_type, headers)
