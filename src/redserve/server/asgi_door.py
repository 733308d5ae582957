"""The ASGI door to the service: takes requests for inference (`targets.py`) in front of the application's routing.

Everything else goes on to the application. A FastAPI route would cost three times as much
(`benchmarks/results/door_cost.json`); OpenAPI documents the paths all the same (`docs.py`). Plain requests do not come
this far where nobody else is to see them (`plain_door.py`).
"""

from time import perf_counter

from starlette.types import ASGIApp, Receive, Scope, Send

from redserve.errors import MethodNotAllowed, RedserveError, SlowRequest
from redserve.middleware import set_error, set_model, set_route
from redserve.routes import path_below
from redserve.server.exchange import Exchange, Exchanges
from redserve.server.reply import Reply
from redserve.server.request_headers import by_name
from redserve.server.service import InferenceService
from redserve.server.targets import NO_ALIASES, Aliases


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
        self._exchanges = Exchanges()

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
        exchange = Exchange(receive, perf_counter())
        call = self._service.infer(target, headers, body, exchange.answer, arrived_s=arrived_s)
        try:
            reply = await self._exchanges.reply(exchange)
        except BaseException:
            call.cancel()
            raise
        if reply is None:  # the client left; nobody reads an answer
            call.cancel()
            return None
        return await _send(scope, send, reply)


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
