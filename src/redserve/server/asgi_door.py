"""The ASGI door to the service: takes `/predict` and `/predict/{model}` in front of the application's routing.

Everything else goes on to the application. A FastAPI route would cost 2.3 times as much
(`benchmarks/results/door_cost.json`); OpenAPI documents the paths all the same (`docs.py`).
"""

import asyncio
from time import perf_counter

from starlette.types import ASGIApp, Receive, Scope, Send

from redserve.errors import MethodNotAllowed, QueueFull, RedserveError, SlowRequest, TooLarge
from redserve.middleware import set_error, set_model, set_route
from redserve.routes import path_below
from redserve.server.deadlines import HEADER as TIMEOUT_MS
from redserve.server.service import InferenceService, Reply

WATCH_AFTER_S = 0.02
"""A request that is not answered by then is watched for a client that leaves; a task for each would cost 10 us."""

MIN_BODY_BYTES_PER_S = 1_000
"""A body that comes faster is never too slow. Source: Apache's mod_reqtimeout, which asks for 500."""

MAX_LENGTH_DIGITS = 18
"""A longer `Content-Length` is no size of anything; `int` itself refuses one of 4,300 digits."""


def predict_route(path: str) -> tuple[str, str] | None:
    """The route template of a path that the door takes, and the model's name in it, which may be empty; else `None`."""
    if path == "/predict":
        return path, ""
    name = path.removeprefix("/predict/")
    if name == path or name == "" or "/" in name:
        return None
    return "/predict/{model}", name


class PredictDoor:
    """ASGI middleware that answers inference requests.

    Args:
        app: Gets every other request.
        service: Answers.
        max_body_bytes: A longer body is refused with 413.
        max_bodies_bytes: All bodies that are still on their way; one that exceeds it is refused with 503.
        body_timeout_s: A body that has not come by then is refused with 408; each 1,000 bytes of it give a second more.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        service: InferenceService,
        max_body_bytes: int,
        max_bodies_bytes: int,
        body_timeout_s: float,
    ) -> None:
        self.app = app
        self._service = service
        self._max_body_bytes = max_body_bytes
        self._max_bodies_bytes = max_bodies_bytes
        self._body_timeout_s = body_timeout_s
        self._bodies_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        route = predict_route(path_below(scope.get("root_path", ""), scope["path"]))
        if route is None:
            return await self.app(scope, receive, send)
        template, name = route
        arrived_s = perf_counter()
        set_route(scope, template)
        set_model(scope, self._service.model_label(name or None))
        if scope["method"] != "POST":
            return await _send(scope, send, self._service.refusal(MethodNotAllowed(scope["method"], allowed=("POST",))))
        headers = dict(scope["headers"])
        try:
            body = await self._read(receive, headers.get(b"content-length", b""))
        except RedserveError as error:
            return await _send(scope, send, self._service.refusal(error))
        if body is None:
            return None
        exchange = _Exchange()
        call = self._service.predict(
            name or None,
            body,
            exchange.answer,
            content_type=headers.get(b"content-type", b""),
            content_encoding=headers.get(b"content-encoding", b""),
            timeout_ms=headers.get(TIMEOUT_MS, b""),
            arrived_s=arrived_s,
        )
        try:
            reply = await exchange.wait(receive)
        except BaseException:
            call.cancel()
            raise
        if reply is None:  # the client left; nobody reads an answer
            call.cancel()
            return None
        return await _send(scope, send, reply)

    async def _read(self, receive: Receive, declared: bytes) -> bytes | None:
        """The whole body, or `None` when the client left before its end.

        Raises:
            TooLarge: It is too long, or `declared` to be; the rest is not read.
            SlowRequest: It came too slowly; the rest is not read.
            QueueFull: All bodies on their way are too much together.
        """
        if declared.isdigit() and (len(declared) > MAX_LENGTH_DIGITS or int(declared) > self._max_body_bytes):
            raise TooLarge(self._max_body_bytes)
        chunks: list[bytes] = []
        size_bytes = held_bytes = 0
        try:
            async with asyncio.timeout(self._body_timeout_s) as reading:
                last_s = reading.when() or 0.0
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    chunk = message.get("body", b"")
                    size_bytes += len(chunk)
                    if size_bytes > self._max_body_bytes:
                        raise TooLarge(self._max_body_bytes)
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return b"".join(chunks) if len(chunks) > 1 else chunk
                    held_bytes += len(chunk)
                    self._bodies_bytes += len(chunk)
                    if self._bodies_bytes > self._max_bodies_bytes:
                        raise QueueFull(waiting=self._bodies_bytes, limit=self._max_bodies_bytes, unit="bytes")
                    reading.reschedule(last_s + size_bytes / MIN_BODY_BYTES_PER_S)
        except TimeoutError:
            raise SlowRequest(size_bytes) from None
        finally:
            self._bodies_bytes -= held_bytes


class _Exchange:
    """Waits for the one reply, or for the client to leave."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reply: asyncio.Future[Reply | None] = self._loop.create_future()
        self._watcher: asyncio.Task[None] | None = None

    def answer(self, reply: Reply | None) -> None:
        if not self._reply.done():
            self._reply.set_result(reply)

    async def wait(self, receive: Receive) -> Reply | None:
        """The reply, or `None` when the client left before it."""
        if self._reply.done():
            return self._reply.result()
        timer = self._loop.call_later(WATCH_AFTER_S, self._watch, receive)
        try:
            return await self._reply
        finally:
            timer.cancel()
            if self._watcher is not None:
                self._watcher.cancel()
                await asyncio.gather(self._watcher, return_exceptions=True)

    def _watch(self, receive: Receive) -> None:
        self._watcher = self._loop.create_task(self._until_the_client_leaves(receive))

    async def _until_the_client_leaves(self, receive: Receive) -> None:
        message = await receive()
        if message["type"] == "http.disconnect":  # nothing else may follow a whole body
            self.answer(None)


async def _send(scope: Scope, send: Send, reply: Reply) -> None:
    """Answer. The rest of a body that was refused may still come, and the server throws it away: closing at once would
    reset the connection while the client still sends, and take the answer from it (RFC 9112, 9.6).
    """
    headers = reply.headers
    if reply.error is not None:
        set_error(scope, reply.error)
        if isinstance(reply.error, SlowRequest):
            headers = [*headers, (b"connection", b"close")]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
