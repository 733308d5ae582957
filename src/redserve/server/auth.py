"""Who may ask for what: an ASGI middleware that looks at the key of each request before anything reads its body.

    path                                  needs a key of
    /livez, /readyz, /v2/health/...       nobody
    /predict, /predict/...                inference
    /v2, /v2/...                          inference; but to load and unload models: as any other
    /metrics                              metrics
    /, /docs, /docs/..., /openapi.json    admin
    any other                             admin; where there is no such key, inference
    a platform's (`Aliases`)              inference for the model; nobody for a health check, GET or HEAD

A scope without keys is open. The paths are compared as routing compares them, exactly; whatever is spelled otherwise,
served or not, is one of the others.
"""

from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from redserve.errors import Forbidden, RedserveError, Unauthorized
from redserve.middleware import set_error, set_route
from redserve.routes import path_below
from redserve.server.api_keys import ApiKeys, Keyring
from redserve.server.reply import Reply, error_reply
from redserve.server.targets import NO_ALIASES, Aliases, is_open_inference

HOW = "send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"

PROBES = ("/livez", "/readyz", "/v2/health/live", "/v2/health/ready")
"""Whoever asks whether the server is well need not say who asks."""

_OPEN = frozenset(path + slash for path in PROBES for slash in ("", "/"))
_CHANGES_MODELS = "/v2/repository/models/"
_METRICS = frozenset({"/metrics", "/metrics/"})
_ADMIN = frozenset({"/", "/docs", "/openapi.json"})


def scope_needed(path: str, keys: ApiKeys, *, method: str = "", aliases: Aliases = NO_ALIASES) -> str | None:
    """The scope whose key opens `path`, or `None` where none is needed."""
    if path in _OPEN or aliases.is_health_check(method, path):
        return None
    if path in ("/predict", aliases.predict) or path.startswith("/predict/") or _is_for_inference(path):
        scope = "inference"
    elif path in _METRICS:
        scope = "metrics"
    elif path in _ADMIN or path.startswith("/docs/") or keys.guards("admin"):
        scope = "admin"
    else:
        scope = "inference"
    return scope if keys.guards(scope) else None


class KeyGuard:
    """ASGI middleware that answers 401 to requests without a known key, and 403 to those with a key of other scopes.

    Args:
        app: Gets the requests that may pass, and the lifespan.
        keyring: The keys in force.
        aliases: Further paths.
    """

    def __init__(self, app: ASGIApp, *, keyring: Keyring, aliases: Aliases = NO_ALIASES) -> None:
        self.app = app
        self._keyring = keyring
        self._aliases = aliases

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        path = path_below(scope.get("root_path", ""), scope["path"])
        reply = refusal(
            self._keyring.keys, path, scope["headers"], method=scope.get("method", ""), aliases=self._aliases
        )
        if reply is None or reply.error is None:
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # a websocket that was not accepted: the server answers 403
            return await send({"type": "websocket.close", "code": 1008, "reason": reply.error.reason})
        target = self._aliases.target_of(path)
        if target is not None:
            set_route(scope, target.route)
        set_error(scope, reply.error)
        await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
        return await send({"type": "http.response.body", "body": reply.body})


def refusal(
    keys: ApiKeys, path: str, headers: Iterable[tuple[bytes, bytes]], *, method: str, aliases: Aliases
) -> Reply | None:
    """What a request is answered that lacks the key that its path needs; `None` where it may pass."""
    needed = scope_needed(path, keys, method=method, aliases=aliases)
    error = None if needed is None else _mistake(keys, needed, headers)
    if error is None:
        return None
    reply = error_reply(error, is_open_inference=is_open_inference(path))
    if error.status == 401:
        reply.lines += b"www-authenticate: Bearer\r\n"  # RFC 9110, 15.5.2
    return reply


def _is_for_inference(path: str) -> bool:
    return is_open_inference(path) and not path.startswith(_CHANGES_MODELS)


def _mistake(keys: ApiKeys, needed: str, headers: Iterable[tuple[bytes, bytes]]) -> RedserveError | None:
    sent = _keys_sent(headers)
    if not sent:
        return Unauthorized(f"this needs a key for {needed}: {HOW}")
    if len(sent) > 1:
        return Unauthorized("more than one key was sent: send one, in one header")
    scopes = keys.scopes_of(sent[0])
    if needed in scopes:
        return None
    if scopes:
        return Forbidden(f"this needs a key for {needed}, and yours is for {' and '.join(sorted(scopes))}")
    return Unauthorized("the key is not known here")


def _keys_sent(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """Each key that the headers carry; `Authorization` of another scheme is somebody else's business."""
    sent = []
    for name, value in headers:
        if name == b"x-api-key":
            sent.append(value.strip())
        elif name == b"authorization":
            scheme, _, key = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                sent.append(key.strip())
    return sent
