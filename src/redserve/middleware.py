"""`REDMiddleware`: rate, errors, duration and in flight for each request of any ASGI application.

    server ── receive, send ──> REDMiddleware ──> application
                                  │ begin         received +1, in flight +1
                                  │ send(last)    in flight -1, counted, timed: before the bytes leave, so that a
                                  │               client that then scrapes finds itself
                                  └ raised, returned early, cancelled: counted as the client saw it

A request is counted as the client saw it: raised before the response began = 500; died midway = `aborted`, with the
status already sent; a client that left = 499. Whoever leaves a stream is seen through `receive`. Whoever leaves while
an ordinary answer is computed is silent under uvicorn, which drops what is sent to him: therefore slow requests look
at the server's `receive` once more before they are counted. Observing never fails a request: what goes wrong in here
is logged once.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry

from redserve.errors import RedserveError, outcome_of
from redserve.metrics.exposition import ASGIApp, Message, Receive, Scope, Send, metrics_app
from redserve.metrics.red import REDMetrics
from redserve.routes import RouteTemplates, path_below

__all__ = ["REDMiddleware", "set_error", "set_model", "set_route", "trace_exemplar"]

logger = logging.getLogger("redserve.middleware")

_SCOPE_KEY = "redserve.request"
_NO_SCOPE: Scope = {}
_CANCELLED = (499, "cancelled", "client_disconnected")
# Where `receive` is known to be safe to step once and close: it waits on an event, and loses nothing when closed.
_STEPPABLE = frozenset({"uvicorn.protocols.http.h11_impl", "uvicorn.protocols.http.httptools_impl"})


class REDMiddleware:
    """Counts, times and classifies each HTTP request; also answers GET and HEAD on `/metrics`.

    Use it as `app.add_middleware(REDMiddleware)` or around any ASGI application, `REDMiddleware(app)`. However often
    it is built over one registry and namespace, the numbers are the same ones, and a request that passes two of
    them is counted once, by the outer.

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
        clock: The time in seconds.

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
        red = REDMetrics.shared(registry, namespace=namespace, buckets=buckets, first_byte=first_byte)
        self.received = red.received
        self.finished = red.finished
        self.first_byte = red.first_byte if first_byte else None
        self.template_of = RouteTemplates(app).template_of
        self.clock = clock
        self.exemplar = exemplar
        self.disconnect_check_s = float("inf") if disconnect_check_s is None else disconnect_check_s
        self.counts_into = (REGISTRY if registry is None else registry, namespace)
        self._metrics_app = metrics_app(registry)
        self._metrics_paths = frozenset(() if metrics_path is None else _spellings(metrics_path))
        self._excluded_paths = frozenset(spelling for path in excluded_paths for spelling in _spellings(path))
        self._special_paths = self._metrics_paths | self._excluded_paths
        self._has_failed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
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
        outer: _Request | None = scope.get(_SCOPE_KEY)
        if outer is not None and not outer.is_settled and outer.middleware.counts_into == self.counts_into:
            await self.app(scope, receive, send)
            return
        request = _Request(self, scope, receive, send)
        try:
            self.received(scope["method"])
            scope[_SCOPE_KEY] = request
        except Exception:
            self.failed()
            request.is_settled = True  # what was not counted in is not counted out
        try:
            await self.app(scope, request.receive, request.send)
        except BaseException as error:
            if not request.is_settled:
                request.broke_off(error)
            raise
        if not request.is_settled:
            request.broke_off(None)

    def failed(self) -> None:
        """Log the exception being handled, if it is the first: observation went wrong, requests go on."""
        if not self._has_failed:
            self._has_failed = True
            logger.warning("a request could not be observed; further failures are not logged", exc_info=True)


def set_model(scope_or_request: Any, name: str) -> None:
    """Say which model answers this request: its `model` label.

    Args:
        scope_or_request: The ASGI scope, or anything with a `scope`, such as Starlette's `Request`.
        name: The model's name; a name out of the request itself only once it is known to be a model.
    """
    request = _request_of(scope_or_request)
    if request is not None:
        request.model = str(name)


def set_route(scope_or_request: Any, template: str) -> None:
    """Say which route this request took: for applications that answer without Starlette's routing.

    Args:
        scope_or_request: As for `set_model`.
        template: The route with its parameters' names, never with their values.
    """
    request = _request_of(scope_or_request)
    if request is not None:
        request.route = str(template)


def set_error(scope_or_request: Any, error: RedserveError) -> None:
    """Say why this request fails: `error` gives its outcome and reason, the response alone its status.

    Args:
        scope_or_request: As for `set_model`.
        error: What went wrong. A client that left, or a response that breaks off, still counts as that.
    """
    request = _request_of(scope_or_request)
    if request is not None:
        request.outcome, request.reason = error.outcome, error.reason


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


class _Request:
    """One request: what is known about it, and the `receive` and `send` that its application is given."""

    __slots__ = (
        "_first_byte_s",
        "_last_received",
        "_receive",
        "_scope",
        "_send",
        "_started_s",
        "_stashed",
        "_status",
        "is_gone",
        "is_settled",
        "middleware",
        "model",
        "outcome",
        "reason",
        "route",
    )

    def __init__(self, middleware: REDMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        self.middleware = middleware
        self.model = self.route = ""
        self.outcome = self.reason = ""  # as `set_error` says; else the status decides
        self.is_gone = self.is_settled = False
        self._scope = scope
        self._receive = receive
        self._send = send
        self._status = 0  # of a response that has begun
        self._first_byte_s: float | None = None
        self._last_received: Message | None = None
        self._stashed: Message | None = None
        self._started_s = middleware.clock()

    async def receive(self) -> Message:
        """The server's `receive`; it suspends only where that does, which `request.is_disconnected()` relies on."""
        if self._stashed is not None:
            message, self._stashed = self._stashed, None
        elif self.is_gone:
            return {"type": "http.disconnect"}
        else:
            message = await self._receive()
        self._last_received = message
        if message["type"] == "http.disconnect":
            self.is_gone = True
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """The server's `send`; the request is counted just before the last piece of its body."""
        if self.is_settled:
            return self._send(message)
        try:
            kind = message["type"]
            if kind == "http.response.start":
                status = message["status"]
                if status >= 200:  # an informational response is not the response
                    self._status = status
            elif kind == "http.response.body" or kind == "http.response.zerocopysend":
                if message.get("more_body"):
                    if self._first_byte_s is None and message.get("body", True):
                        self._first_byte_s = self.middleware.clock() - self._started_s
                elif self._status:
                    self._settle()
                    return self._send(message)
            elif kind == "http.response.pathsend" and self._status:  # a whole body: the server reads it from a file
                self._settle()
        except Exception:
            self.middleware.failed()
        return self._send_on(message)

    async def _send_on(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError:  # ASGI 2.4: how `send` says that the client has left
            self.is_gone = True
            raise

    def broke_off(self, error: BaseException | None) -> None:
        """The application is done, and its response was not completed."""
        if self.is_gone or isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            self._settle(_CANCELLED)
        elif self._status:
            self._settle((self._status, "error", "aborted"))
        elif self.outcome:
            self._settle((500, self.outcome, self.reason))
        else:
            self._settle((500, "error", "unhandled_exception"))

    def _settle(self, ending: tuple[int, str, str] | None = None) -> None:
        """Count the request: by code, outcome and reason, or else as its complete response says."""
        self.is_settled = True
        middleware = self.middleware
        scope = self._scope
        self._scope = _NO_SCOPE  # the scope holds this object: a cycle would leave both to the garbage collector
        duration_s = middleware.clock() - self._started_s
        if ending is None:
            if duration_s >= middleware.disconnect_check_s and not self.is_gone:
                self._look_for_disconnect(scope)
            code, outcome, reason = self._status, "ok", ""
            if code >= 400 or self.outcome or self.is_gone:
                code, outcome, reason = self._failure()
        else:
            code, outcome, reason = ending
        route = self.route or middleware.template_of(scope, code)
        method = scope["method"]
        try:
            middleware.finished(
                route=route,
                method=method,
                model=self.model,
                code=code,
                outcome=outcome,
                reason=reason,
                duration_s=duration_s,
                exemplar=None if middleware.exemplar is None else self._exemplar(scope),
            )
            if middleware.first_byte is not None and self._first_byte_s is not None:
                middleware.first_byte(
                    route=route, method=method, model=self.model, outcome=outcome, duration_s=self._first_byte_s
                )
        except Exception:
            middleware.failed()

    def _failure(self) -> tuple[int, str, str]:
        """Classify a complete response that is not simply ok."""
        if self.is_gone:
            return _CANCELLED
        if self.outcome:
            return self._status, self.outcome, self.reason
        if self._status == 500 and _reports_unhandled_exception():
            return 500, "error", "unhandled_exception"
        return self._status, *outcome_of(self._status)

    def _exemplar(self, scope: Scope) -> Mapping[str, str] | None:
        try:
            return self.middleware.exemplar(scope)  # type: ignore[misc]
        except Exception:
            self.middleware.failed()
            return None

    def _look_for_disconnect(self, scope: Scope) -> None:
        """Step the server's `receive` once: it returns at once if the client has left, else it is closed unharmed."""
        if getattr(getattr(self._receive, "__func__", None), "__module__", None) not in _STEPPABLE:
            return
        last = self._last_received
        if _declares_body(scope) if last is None else last.get("more_body"):
            return  # `receive` would take a piece of the body, or ask the client for it
        try:
            step: Any = self._receive()
            try:
                step.send(None)
            except StopIteration as returned:
                if returned.value["type"] == "http.disconnect":
                    self.is_gone = True
                else:
                    self._stashed = returned.value  # the end of an empty body: kept for the application
            finally:
                step.close()
        except Exception:
            self.middleware.failed()


def _request_of(scope_or_request: Any) -> _Request | None:
    scope: Scope = getattr(scope_or_request, "scope", scope_or_request)
    return scope.get(_SCOPE_KEY)


def _spellings(path: str) -> tuple[str, str]:
    bare = path.rstrip("/")
    return bare or "/", bare + "/"


def _declares_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" 0") != b"")
        for name, value in scope["headers"]
    )


def _reports_unhandled_exception() -> bool:
    """Whether the 500 being sent is the one of Starlette's outermost layer, which still holds the exception."""
    error = sys.exc_info()[1]
    held_by = None if error is None else error.__traceback__
    return held_by is not None and held_by.tb_frame.f_globals.get("__name__") == "starlette.middleware.errors"
