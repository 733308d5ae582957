"""The ASGI door to the service: takes requests for inference (`targets.py`) in front of the application's routing.

Everything else goes on to the application. A FastAPI route would cost 2.3 times as much
(`benchmarks/results/door_cost.json`); OpenAPI documents the paths all the same (`docs.py`).
"""

import asyncio
from time import perf_counter

from starlette.types import ASGIApp, Receive, Scope, Send

from redserve.errors import MethodNotAllowed, RedserveError, SlowRequest
from redserve.middleware import set_error, set_model, set_route
from redserve.routes import path_below
from redserve.server.reply import Reply
from redserve.server.request_headers import by_name
from redserve.server.service import InferenceService
from redserve.server.targets import NO_ALIASES, Aliases

WATCH_AFTER_S = 0.02
"""A request that is not answered by then is watched for a client that leaves; a task for each would cost 10 us."""


class InferenceDoor:
    """ASGI middleware that answers inference requests.

    Args:
        app: Gets every other request.
        service: Answers.
        aliases: Further paths of requests for inference.
    """

    def __init__(self, app: ASGIApp, *, service: InferenceService, aliases: Aliases = NO_ALIASES) -> None:
        self.app = app
        self._service = service
        self._aliases = aliases
        self._terms = service.terms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path = path_below(scope.get("root_path", ""), scope["path"])
        target = self._aliases.target_of(path)
        if target is None or self._aliases.is_health_check(scope["method"], path):
            return await self.app(scope, receive, send)
        arrived_s = perf_counter()
        set_route(scope, target.route)
        set_model(scope, self._service.model_label(target.model))
        headers = by_name(scope["headers"])
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed(scope["method"], allowed=("POST",))
            body = await self._terms.bodies.read(receive, headers.get(b"content-length", b""))
        except RedserveError as error:
            return await _send(scope, send, self._terms.refusal(error, is_open_inference=target.is_open_inference))
        if body is None:
            return None
        exchange = _Exchange()
        call = self._service.infer(target, headers, body, exchange.answer, arrived_s=arrived_s)
        try:
            reply = await exchange.wait(receive)
        except BaseException:
            call.cancel()
            raise
        if reply is None:  # the client left; nobody reads an answer
            call.cancel()
            return None
        return await _send(scope, send, reply)


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
