"""The short way by ASGI: plain requests for inference, past the application's layers.

    POST, a path of inference, a small body that is all there ─> service ─> counted ─> sent
    any other: a large body, in pieces, without a key, observed by a middleware around ─> the long way, unchanged

The same service, keys, numbers, log and answers as by the long way (`asgi_door.py`), byte for byte. What it saves is
what FastAPI's layers and our own do around each message; under uvicorn, the second write too (`one_write.py`).
"""

from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from redserve.metrics import REDMetrics
from redserve.middleware import is_observed
from redserve.routes import path_below
from redserve.server.api_keys import Keyring
from redserve.server.auth import refusal
from redserve.server.bodies import Begun
from redserve.server.exchange import Exchange, Exchanges
from redserve.server.logs import log_access
from redserve.server.one_write import OneWrite
from redserve.server.reply import Reply
from redserve.server.request_headers import by_name
from redserve.server.service import InferenceService
from redserve.server.targets import Aliases, Target

_MAX_LENGTH_DIGITS = 5
"""A longer body does not come in one piece."""

_NO_LENGTH = b"unknown"


class PlainDoor:
    """An ASGI application that answers plain requests for inference.

    Args:
        app: Gets every other request.
        service: Answers.
        red: Counts.
        keyring: The keys in force.
        aliases: Further paths of requests for inference.
        has_access_log: Whether each request is logged.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        service: InferenceService,
        red: REDMetrics,
        keyring: Keyring,
        aliases: Aliases,
        has_access_log: bool,
    ) -> None:
        self.app = app
        self._service = service
        self._red = red
        self._keyring = keyring
        self._aliases = aliases
        self._has_access_log = has_access_log
        self._exchanges = Exchanges()
        self._one_write = OneWrite()
        self._max_body_bytes = service.terms.bodies.max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope."""
        target = self._target_of(scope)
        if target is None:
            return await self.app(scope, receive, send)
        arrived_s = perf_counter()
        headers = by_name(scope["headers"])
        if len(headers.get(b"content-length", _NO_LENGTH)) > _MAX_LENGTH_DIGITS:
            return await self.app(scope, receive, send)
        exchange = Exchange(receive, arrived_s)
        call = None
        try:
            begun = Begun(receive)
            body = self._body_of(begun.message)
            if body is not None:
                call = self._service.infer(target, headers, body, exchange.answer, arrived_s=arrived_s)
        except Exception as error:  # not of the client's making: the application's handlers are to see it
            return await self.app(scope, _raising(error), send)
        if call is None:
            return await self.app(scope, begun.receive, send)
        self._red.received("POST")
        answered = cycle = None
        try:
            reply = await self._exchanges.reply(exchange)
            if reply is None:  # the client left; nobody reads an answer
                return None
            cycle = self._one_write.cycle_of(send, reply)
            if cycle is None:
                await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
            answered = reply
        finally:
            if answered is None:
                call.cancel()
            self._ended(scope, target, answered, arrived_s)
        if cycle is None:
            return await send({"type": "http.response.body", "body": reply.body})
        return self._one_write.write(cycle, reply)

    def _target_of(self, scope: Scope) -> Target | None:
        """Where it goes; `None` is elsewhere, or the long way."""
        if scope["type"] != "http" or scope["method"] != "POST" or is_observed(scope):
            return None
        path: str = scope["path"]
        root_path = scope.get("root_path")
        if root_path:
            path = path_below(root_path, path)
        target = self._aliases.target_of(path)
        keys = self._keyring.keys
        if target is None or not keys.guards("inference"):
            return target
        refused = refusal(keys, path, scope["headers"], method="POST", aliases=self._aliases)
        return target if refused is None else None

    def _ended(self, scope: Scope, target: Target, reply: Reply | None, arrived_s: float) -> None:
        """Count, and log; before the last byte leaves, so that a client that then scrapes finds itself.

        Args:
            scope: Of the request.
            target: Where it went.
            reply: Its answer; `None` when the client left before it.
            arrived_s: When it came.
        """
        model, status, outcome, reason, sent_bytes = "", 499, "cancelled", "client_disconnected", 0
        if reply is not None:
            model, status, outcome, reason, sent_bytes = reply.model, reply.status, "ok", "", len(reply.body)
            if reply.error is not None:
                outcome, reason = reply.error.outcome, reply.error.reason
        if not model:
            model = self._service.model_label(target.model)
        duration_s = perf_counter() - arrived_s
        self._red.finished(target.route, "POST", model, status, outcome, reason, duration_s)
        if self._has_access_log:
            log_access(scope.get("client"), "POST", scope["path"], status, sent_bytes, duration_s)

    def _body_of(self, message: Message | None) -> bytes | None:
        """The whole body, if this is that."""
        if message is None or message["type"] != "http.request" or message.get("more_body", False):
            return None
        body: bytes = message.get("body", b"")
        return body if len(body) <= self._max_body_bytes else None


def _raising(error: Exception) -> Receive:
    """A `receive` that fails."""

    async def receive() -> Message:
        raise error

    return receive
