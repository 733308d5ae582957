"""The server's FastAPI application, which lets plain requests for inference pass its layers where they do nothing.

    server ─> Application ── POST, a path of inference, nobody else looks ─> PlainDoor ─> service
                          └─ any other ─> FastAPI: telemetry, errors, middleware, routes

These layers and our own take 9 us of a request (`benchmarks/results/door_cost.json`). Whoever adds middleware, wraps
the application, mounts it or configures OpenTelemetry gets to see every request, as in any other application.
"""

import sys
from types import FunctionType
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from redserve.middleware import REDMiddleware
from redserve.server.asgi_door import InferenceDoor
from redserve.server.auth import KeyGuard
from redserve.server.logs import AccessLog
from redserve.server.plain_door import PlainDoor

OWN_MIDDLEWARE = frozenset({REDMiddleware, KeyGuard, AccessLog, InferenceDoor})

_KNOWN_ROOTS = frozenset({"fastapi", "starlette", "redserve"})
_SDK = "opentelemetry.sdk"  # without it, there is nobody whom FastAPI could report to


class Application(FastAPI):
    """FastAPI with a short way.

    Attributes:
        plain_door: That way; `None` for none.
    """

    plain_door: PlainDoor | None = None
    _stack: ASGIApp | None = None
    _has_only_own = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope."""
        stack = self.middleware_stack
        if stack is not self._stack:
            self._stack, self._has_only_own = stack, _has_only_own(self)
        door = self.plain_door
        if door is None or not self._has_only_own or "app" in scope or _SDK in sys.modules:
            await super().__call__(scope, receive, send)
        else:
            await door(scope, receive, send)

    async def long_way(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it as FastAPI does."""
        await super().__call__(scope, receive, send)


def offline_application(**settings: Any) -> Application:
    """An application whose `/docs` need no internet."""
    app = FastAPIOffline(**settings)
    app.__class__ = Application  # FastAPIOffline is a function, and makes nothing but a FastAPI
    return app  # type: ignore[return-value]


def has_only_own_middleware(app: FastAPI) -> bool:
    """Whether nobody has added middleware to an application of ours."""
    return {added.cls for added in app.user_middleware} <= OWN_MIDDLEWARE


def _has_only_own(app: Application) -> bool:
    """Whether no other would see a request on the long way, or change it."""
    if not has_only_own_middleware(app) or app.root_path or getattr(app, "max_body_size", None) is not None:
        return False
    for cls in (FastAPI, Starlette):
        call = vars(cls)["__call__"]
        if not isinstance(call, FunctionType) or call.__module__ != cls.__module__:
            return False  # as Sentry does
    layer: object = app.middleware_stack
    while layer is not app.router:  # OpenTelemetry's and Datadog's instrumentation wrap the stack
        if type(layer).__module__.partition(".")[0] not in _KNOWN_ROOTS:
            return False
        layer = getattr(layer, "app", None)
    return True
