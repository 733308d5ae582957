"""One inference request, from its bytes to its answer: decode, admit, batch, encode, answer exactly once.

    Call(bytes) -> codec.decode -> model.infer -> batch -> codec.encode -> Reply(bytes)

No web framework. Written with callbacks: `answer(reply)` is called exactly once, on the event loop, unless the call is
cancelled first; a future and a task per request cost more than a small model does. Large bodies are decoded, and large
answers encoded, in a thread.
"""

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

import orjson

from redserve.batching import Answer, Ticket
from redserve.engine.tensors import Array
from redserve.errors import (
    BadRequest,
    MethodNotAllowed,
    ModelError,
    Overloaded,
    RedserveError,
    Rejected,
    UnsupportedMediaType,
)
from redserve.models import ModelRepository, ServedModel
from redserve.protocol import Codec, Encoded, InferRequest, PredictJson
from redserve.server.deadlines import Deadlines

logger = logging.getLogger("redserve.server")

T = TypeVar("T")

LARGE_BYTES = 65_536
"""More is parsed, or written, in a thread: 1.6 MB of JSON take 8 ms. Source: measured, one core."""

MAX_MESSAGE_CHARACTERS = 1_000
"""Messages may quote the request, whose names have any length."""

JSON = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class Reply:
    """What the client gets.

    Attributes:
        status: HTTP status.
        headers: Lower-case names, content type and length among them.
        body: The bytes.
        model: The model that answers, for the `model` label; empty when the request reached none.
        error: Why the request failed, or `None`.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    model: str = ""
    error: RedserveError | None = None


def error_reply(error: RedserveError, *, model: str = "", overload_status: int = 503) -> Reply:
    """The answer to a request that failed: `{"error": {"reason", "message", ...}}`."""
    fields: dict[str, str] = {"reason": error.reason, "message": str(error)[:MAX_MESSAGE_CHARACTERS]}
    if model:
        fields["model"] = model
    if isinstance(error, BadRequest) and error.where is not None:
        fields["where"] = error.where[:MAX_MESSAGE_CHARACTERS]
    body = orjson.dumps({"error": fields})
    headers = [JSON, (b"content-length", str(len(body)).encode())]
    status = error.status
    if isinstance(error, Rejected):
        retry_after_s = 0.0
        if isinstance(error, Overloaded):
            status, retry_after_s = overload_status, error.retry_after_s or 0.0
        headers.append((b"retry-after", str(max(math.ceil(retry_after_s), 1)).encode()))  # whole seconds: RFC 9110
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    return Reply(status, headers, body, model, error)


class InferenceService:
    """Answers `/predict` for every model of a repository.

    Args:
        repository: The models.
        deadlines: When answers are due.
        missed: Told the model of each answer that is sent after its deadline.
        overload_status: The status of what is turned away because too much waits: 503 or 429.
    """

    def __init__(
        self,
        repository: ModelRepository,
        *,
        deadlines: Deadlines,
        missed: Callable[[str], None],
        overload_status: int = 503,
    ) -> None:
        self.repository = repository
        self.deadlines = deadlines
        self.missed = missed
        self._overload_status = overload_status
        self._codecs: dict[tuple[str, str], tuple[ServedModel, PredictJson]] = {}

    def predict(
        self,
        model_name: str | None,
        body: bytes,
        answer: Callable[[Reply], None],
        *,
        content_type: bytes = b"application/json",
        content_encoding: bytes = b"",
        timeout_ms: bytes = b"",
        arrived_s: float,
    ) -> "Call":
        """Begin a request; `answer` may be called before this returns, when it is refused.

        Args:
            model_name: Which model; `None` is the only one.
            body: The whole body.
            answer: Called once, on the loop, unless the call is cancelled.
            content_type: As the client sent it; empty when it sent none.
            content_encoding: As the client sent it; empty when it sent none.
            timeout_ms: `X-Request-Timeout-Ms` as the client sent it; empty when it sent none.
            arrived_s: `time.perf_counter()` when the request arrived.

        Returns:
            The call, for cancelling it when the client leaves.
        """
        call = Call(self, answer, arrived_s)
        try:
            model = self.repository.get(model_name)
            call.model = model.name
            call.deadline_s = self.deadlines.deadline_s(timeout_ms, arrived_s=arrived_s)
            _check_content(content_type, content_encoding)
            codec = self._codec_of(model)
        except RedserveError as error:
            call.fail(error)
            return call
        call.begin(model, codec, body)
        return call

    def refusal(self, error: RedserveError, *, model: str = "") -> Reply:
        """The answer to a request that fails with `error`."""
        return error_reply(error, model=model, overload_status=self._overload_status)

    def model_label(self, model_name: str | None) -> str:
        """The `model` label of a request for `model_name`, served or not yet; empty where there is no such model."""
        names = [model.name for model in self.repository if model_name in (None, model.name)]
        return names[0] if len(names) == 1 else ""

    def _codec_of(self, model: ServedModel) -> PredictJson:
        key = (model.name, model.version)
        cached = self._codecs.get(key)
        if cached is None or cached[0] is not model:
            engine = model.engine
            codec = PredictJson(
                engine.inputs,
                engine.outputs,
                row_wise=engine.batchability.is_row_wise,
                row_wise_reason=engine.batchability.reason,
            )
            cached = self._codecs[key] = (model, codec)
        return cached[1]


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
        "_request",
        "_service",
        "_ticket",
        "deadline_s",
        "model",
    )

    def __init__(self, service: InferenceService, answer: Callable[[Reply], None], arrived_s: float) -> None:
        self._service = service
        self._answer = answer
        self._arrived_s = arrived_s
        self._cancelled = False
        self._ticket: Ticket | None = None
        self.model = ""
        self.deadline_s = math.inf

    def begin(self, model: ServedModel, codec: Codec, body: bytes) -> None:
        """Decode and queue."""
        self._codec = codec
        self._make(
            lambda: codec.decode(body),
            is_large=codec.parsed_bytes(body) > LARGE_BYTES,
            then=lambda request: self._queue(model, request),
        )

    def cancel(self) -> None:
        """The client left: what still waits leaves the queue, and `answer` is not called."""
        self._cancelled = True
        if self._ticket is not None:
            self._ticket.cancel()

    def fail(self, error: RedserveError) -> None:
        """Answer with `error`."""
        self._reply(self._service.refusal(error, model=self.model))

    def _queue(self, model: ServedModel, request: InferRequest) -> None:
        self._request = request
        try:
            self._ticket = model.infer(request.tensors, self._ran, deadline_s=self.deadline_s)
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
        self._make(
            lambda: self._codec.encode(self._request, outputs),
            is_large=self._codec.written_bytes(self._request, outputs) > LARGE_BYTES,
            then=lambda encoded: self._succeed(encoded, result),
        )

    def _make(self, make: Callable[[], T], *, is_large: bool, then: Callable[[T], None]) -> None:
        """Go on with what `make` makes: at once, or in a thread where that is much work."""
        if not is_large:
            try:
                made = make()
            except RedserveError as error:
                self.fail(error)
            except Exception as error:  # an engine of the user's may answer with what no codec can write
                self._crash(error)
            else:
                then(made)
            return

        def is_made(future: asyncio.Future[T]) -> None:
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

        asyncio.get_running_loop().run_in_executor(None, make).add_done_callback(is_made)

    def _succeed(self, encoded: Encoded, result: Answer[list[Array]]) -> None:
        queue_ms, compute_ms = 1000 * result.queue_s, 1000 * result.compute_s
        now_s = perf_counter()
        total_ms = 1000 * (now_s - self._arrived_s)
        timing = f"queue;dur={queue_ms:.3f}, compute;dur={compute_ms:.3f}, total;dur={total_ms:.3f}"
        headers = [
            (b"content-type", encoded.content_type),
            (b"content-length", str(len(encoded.body)).encode()),
            (b"server-timing", timing.encode()),
            *encoded.headers,
        ]
        if now_s > self.deadline_s and not self._cancelled:
            self._service.missed(self.model)
        self._reply(Reply(200, headers, encoded.body, self.model))

    def _crash(self, error: BaseException) -> None:
        logger.error("a request failed unexpectedly", extra={"model": self.model}, exc_info=error)
        self.fail(RedserveError("the server failed on this request"))

    def _reply(self, reply: Reply) -> None:
        if not self._cancelled:
            self._answer(reply)


def _check_content(content_type: bytes, content_encoding: bytes) -> None:
    media_type = content_type.partition(b";")[0].strip().lower()
    if media_type not in (b"application/json", b"") and not media_type.endswith(b"+json"):
        raise UnsupportedMediaType(
            f"send JSON with 'Content-Type: application/json', not {media_type.decode('latin-1')!r}"
        )
    if content_encoding.lower() not in (b"", b"identity"):
        raise UnsupportedMediaType(f"content encoding {content_encoding.decode('latin-1')!r} is not read here")
