"""`REDMiddleware`: rate, errors, duration and in flight for each request of any ASGI application.

    server ── receive, send ──> REDMiddleware ──> application
                                  │ begin         received +1, in flight +1
                                  │ send(last)    in flight -1, counted, timed: before the bytes leave, so that a
                                  │               client that then scrapes finds itself
                                  └ raised, returned early, cancelled: counted as the client saw it

How a request ends is in `observed_request.py`, which route it took in `routes.py`. Observing never fails a request:
what goes wrong is logged once.
"""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from redserve.errors import RedserveError
from redserve.metrics.exposition import ASGIApp, Message, Receive, Scope, Send, metrics_app
from redserve.metrics.red import REDMetrics
from redserve.observed_request import ObservedRequest, Observer
from redserve.routes import RouteTemplates, path_below

__all__ = ["REDMiddleware", "is_observed", "set_error", "set_model", "set_route", "trace_exemplar"]

_SCOPE_KEY = "redserve.request"


class REDMiddleware:
    """Counts, times and classifies each HTTP request; also answers GET and HEAD on `/metrics`.

    Use it as `app.add_middleware(REDMiddleware)` or around any ASGI application, `REDMiddleware(app)`. However often
    it is built over one registry and namespace, the numbers are the same ones, and a request that passes two of
    them is counted once, by the outer. In two registries or namespaces it is counted twice, with the same names.

    Args:
        app: The application.
        registry: Where the families are registered; `None` is prometheus_client's default registry.
        namespace: What the names of the families begin with.
        buckets: Upper bounds of the latency histogram in seconds; `None` is `latency_buckets()`.
        metrics_path: Where GET and HEAD are answered with all metrics of the registry, with or without a trailing
            slash; `None` leaves the path to the application.
        excluded_paths: Exact paths, with or without a trailing slash, whose requests are in no number at all.
        disconnect_check_s: A request that took at least this long is asked whether its client is still there; 0 asks
            always, `None` never. Only uvicorn's `receive` allows the question; elsewhere the status stands.
        first_byte: Also keep a histogram of the time to the first byte of each streamed body.
        exemplar: Called with the scope when a request has ended; returns the labels of its exemplar, or `None`.
            `trace_exemplar` is one.
        clock: The time in seconds; it must not go backwards.

    Raises:
        ValueError: A setting is wrong, or the registry has these families with other settings.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        registry: CollectorRegistry | None = None,
        namespace: str = "inference",
        buckets: Sequence[float] | None = None,
        metrics_path: str | None = "/metrics",
        excluded_paths: Collection[str] = ("/metrics", "/livez", "/readyz", "/docs", "/openapi.json"),
        disconnect_check_s: float | None = 0.1,
        first_byte: bool = False,
        exemplar: Callable[[Scope], Mapping[str, str] | None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if disconnect_check_s is not None and not disconnect_check_s >= 0:
            raise ValueError(f"disconnect_check_s must be >= 0 or None, got {disconnect_check_s}")
        if isinstance(excluded_paths, str):
            raise ValueError(f"excluded_paths must be a collection of paths, got the string {excluded_paths!r}")
        for path in (*excluded_paths, *([] if metrics_path is None else [metrics_path])):
            if not path.startswith("/"):
                raise ValueError(f"a path must begin with /, got {path!r}")
        self.app = app
        self._routes = RouteTemplates(app)
        self.observer = Observer(
            REDMetrics.shared(registry, namespace=namespace, buckets=buckets, first_byte=first_byte),
            self._routes,
            first_byte=first_byte,
            disconnect_check_s=math.inf if disconnect_check_s is None else disconnect_check_s,
            exemplar=exemplar,
            clock=clock,
        )
        self._metrics_app = metrics_app(registry)
        self._metrics_paths = frozenset(() if metrics_path is None else _spellings(metrics_path))
        self._excluded_paths = frozenset(spelling for path in excluded_paths for spelling in _spellings(path))
        self._special_paths = self._metrics_paths | self._excluded_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, self._prepared_by(send) if scope["type"] == "lifespan" else send)
            return
        path = scope["path"]
        root_path = scope.get("root_path")
        if root_path:
            path = path_below(root_path, path)
        if path in self._special_paths:
            if path in self._metrics_paths and scope["method"] in ("GET", "HEAD"):
                await self._metrics_app(scope, receive, send)
                return
            if path in self._excluded_paths:
                await self.app(scope, receive, send)
                return
        outer: ObservedRequest | None = scope.get(_SCOPE_KEY)
        if outer is not None and outer.is_counted_by(self.observer):
            await self.app(scope, receive, send)
            return
        try:
            request = scope[_SCOPE_KEY] = ObservedRequest(self.observer, outer, scope, receive, send)
            self.observer.received(scope["method"])
        except Exception:
            self.observer.failed()
            await self.app(scope, receive, send)  # what was not counted in is not counted out
            return
        try:
            await self.app(scope, request.receive, request.send)
        except BaseException as error:
            if not request.is_settled:
                request.broke_off(error)
            raise
        if not request.is_settled:
            request.broke_off(None)

    def _prepared_by(self, send: Send) -> Send:
        """Let the routes be read once the application has started, so that no request waits for it."""

        async def prepared_send(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._routes.prepare()
            await send(message)

        return prepared_send


def set_model(scope_or_request: Any, name: str) -> None:
    """Say which model answers this request: its `model` label.

    Args:
        scope_or_request: The ASGI scope, or anything with a `scope`, such as Starlette's `Request`.
        name: The model's name; a name out of the request itself only once it is known to be a model.
    """
    for request in _requests_of(scope_or_request):
        request.model = str(name)


def set_route(scope_or_request: Any, template: str) -> None:
    """Say which route this request took: for applications that answer without Starlette's routing.

    Args:
        scope_or_request: As for `set_model`.
        template: The route with its parameters' names, never with their values.
    """
    for request in _requests_of(scope_or_request):
        request.route = str(template)


def set_error(scope_or_request: Any, error: RedserveError) -> None:
    """Say why this request fails: `error` gives its outcome and reason, the response alone its status.

    Args:
        scope_or_request: As for `set_model`.
        error: What went wrong. A client that left, or a response that breaks off, still counts as that.
    """
    for request in _requests_of(scope_or_request):
        request.outcome, request.reason = str(error.outcome), str(error.reason)


def is_observed(scope: Scope) -> bool:
    """Whether a middleware counts this request."""
    return _SCOPE_KEY in scope


def trace_exemplar(scope: Scope) -> dict[str, str] | None:
    """Name the sampled OpenTelemetry span that is current: for `REDMiddleware(app, exemplar=trace_exemplar)`.

    Returns:
        `trace_id` and `span_id` in hexadecimal; `None` without OpenTelemetry, or outside of a sampled span.
    """
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    span = trace.get_current_span().get_span_context()
    if not span.is_valid or not span.trace_flags.sampled:
        return None
    return {"trace_id": trace.format_trace_id(span.trace_id), "span_id": trace.format_span_id(span.span_id)}


def _requests_of(scope_or_request: Any) -> Iterator[ObservedRequest]:
    """The request as each middleware around the caller counts it."""
    scope: Scope = getattr(scope_or_request, "scope", scope_or_request)
    request: ObservedRequest | None = scope.get(_SCOPE_KEY)
    while request is not None:
        yield request
        request = request.outer


def _spellings(path: str) -> tuple[str, str]:
    bare = path.rstrip("/")
    return bare or "/", bare + "/"
