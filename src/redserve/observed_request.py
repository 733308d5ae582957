"""One request as `REDMiddleware` sees it: what its application receives and sends, and how it ended.

    receive ──> a disconnect is remembered                  the client has left: cancelled, 499
    send    ──> the last piece: counted, then handed over   ok, or as status and `set_error` say
    broke_off ─> it raised, returned early, was cancelled   500, aborted with the status already sent, or cancelled

A request is counted as the client saw it. Whoever leaves a stream is seen through `receive`. Whoever leaves while an
ordinary answer is computed is silent under uvicorn, which drops what is sent to him: therefore slow requests look at
the server's `receive` once more before they are counted.
"""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from redserve.errors import outcome_of
from redserve.metrics.exposition import Message, Receive, Scope, Send
from redserve.metrics.red import REDMetrics
from redserve.routes import RouteTemplates

logger = logging.getLogger("redserve.middleware")

_NO_SCOPE: Scope = {}
_CANCELLED = (499, "cancelled", "client_disconnected")
# Where `receive` is known to be safe to step once and close: it waits on an event, and loses nothing when closed.
_STEPPABLE = frozenset({"uvicorn.protocols.http.h11_impl", "uvicorn.protocols.http.httptools_impl"})


class Observer:
    """What the requests of one middleware share: the instruments, the routes and the settings."""

    def __init__(
        self,
        red: REDMetrics,
        routes: RouteTemplates,
        *,
        first_byte: bool,
        disconnect_check_s: float,
        exemplar: Callable[[Scope], Mapping[str, str] | None] | None,
        clock: Callable[[], float],
    ) -> None:
        self.red = red
        self.received = red.received
        self.finished = red.finished
        self.first_byte = red.first_byte if first_byte else None
        self.template_of = routes.template_of
        self.disconnect_check_s = disconnect_check_s
        self.exemplar = exemplar
        self.clock = clock
        self._has_failed = False

    def failed(self) -> None:
        """Log the exception being handled, if it is the first: observation went wrong, requests go on."""
        if not self._has_failed:
            self._has_failed = True
            logger.warning("a request could not be observed; further failures are not logged", exc_info=True)


class ObservedRequest:
    """What is known about one request, and the `receive` and `send` that its application is given.

    Attributes:
        outer: The request as another middleware around this one counts it, into other instruments.
        is_settled: It has been counted; whatever follows changes nothing.
        model: As `set_model` says; empty for none.
        route: As `set_route` says; else the router's choice counts.
        outcome: As `set_error` says; else the status decides.
        reason: As for `outcome`.
    """

    __slots__ = (
        "_first_byte_s",
        "_is_gone",
        "_last_received",
        "_observer",
        "_receive",
        "_scope",
        "_send",
        "_started_s",
        "_status",
        "is_settled",
        "model",
        "outcome",
        "outer",
        "reason",
        "route",
    )

    def __init__(
        self, observer: Observer, outer: "ObservedRequest | None", scope: Scope, receive: Receive, send: Send
    ) -> None:
        self.outer = outer
        self.model = self.route = self.outcome = self.reason = ""
        self.is_settled = self._is_gone = False
        self._observer = observer
        self._scope = scope
        self._receive = receive
        self._send = send
        self._status = 0  # of a response that has begun
        self._first_byte_s: float | None = None
        self._last_received: Message | None = None
        self._started_s = observer.clock()

    def is_counted_by(self, observer: Observer) -> bool:
        """Whether this request, or one around it, will be counted into the instruments of `observer`."""
        if not self.is_settled and self._observer.red.shares_numbers_with(observer.red):
            return True
        return self.outer is not None and self.outer.is_counted_by(observer)

    async def receive(self) -> Message:
        """The server's `receive`; it suspends only where that does, which `request.is_disconnected()` relies on."""
        message = self._last_received = await self._receive()
        if message["type"] == "http.disconnect":
            self._is_gone = True
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
                    self._status = int(status)
            elif kind == "http.response.body" or kind == "http.response.zerocopysend":
                if message.get("more_body"):
                    if self._first_byte_s is None and message.get("body", True):
                        self._first_byte_s = self._observer.clock() - self._started_s
                elif self._status:
                    self._settle()
                    return self._send(message)
            elif kind == "http.response.pathsend" and self._status:  # a whole body: the server reads it from a file
                self._settle()
        except Exception:
            self._observer.failed()
        return self._send_on(message)

    async def _send_on(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError:  # ASGI 2.4: how `send` says that the client has left
            self._is_gone = True
            raise

    def broke_off(self, error: BaseException | None) -> None:
        """The application is done, and its response was not completed."""
        if isinstance(error, GeneratorExit) or (isinstance(error, asyncio.CancelledError) and _is_cancelled()):
            self._is_gone = True
        self._settle(is_complete=False)

    def _settle(self, is_complete: bool = True) -> None:
        """Count the request, once."""
        self.is_settled = True
        scope = self._scope
        self._scope = _NO_SCOPE  # the scope holds this object: a cycle would leave both to the garbage collector
        observer = self._observer
        try:
            duration_s = observer.clock() - self._started_s
            if duration_s >= observer.disconnect_check_s and not self._is_gone:
                self._look_for_disconnect(scope)
            code, outcome, reason = self._status, "ok", ""
            if code >= 400 or self.outcome or self._is_gone or not is_complete:
                code, outcome, reason = self._failure(is_complete=is_complete)
            route = self.route or observer.template_of(scope, code)
            method = scope["method"]
            exemplar = None if observer.exemplar is None else self._exemplar(scope)
            observer.finished(route, method, self.model, code, outcome, reason, duration_s, exemplar)
            if observer.first_byte is not None and self._first_byte_s is not None:
                observer.first_byte(
                    route=route, method=method, model=self.model, outcome=outcome, duration_s=self._first_byte_s
                )
        except Exception:
            observer.failed()

    def _failure(self, *, is_complete: bool) -> tuple[int, str, str]:
        """Classify a request that is not simply ok, as the client saw it."""
        if self._is_gone:
            return _CANCELLED
        if self._status and not is_complete:
            return self._status, "error", "aborted"
        status = self._status or 500  # which the server answers for an application that did not
        if self.outcome:
            return status, self.outcome, self.reason
        if not is_complete or (status == 500 and _reports_unhandled_exception()):
            return status, "error", "unhandled_exception"
        return status, *outcome_of(status)

    def _exemplar(self, scope: Scope) -> Mapping[str, str] | None:
        try:
            return self._observer.exemplar(scope)  # type: ignore[misc]
        except Exception:
            self._observer.failed()
            return None

    def _look_for_disconnect(self, scope: Scope) -> None:
        """Step the server's `receive` once: it returns at once if the client has left, else it is closed unharmed."""
        if getattr(getattr(self._receive, "__func__", None), "__module__", None) not in _STEPPABLE:
            return
        last = self._last_received
        try:
            if _declares_body(scope) if last is None else last.get("more_body"):
                return  # `receive` would take a piece of the body, or ask the client for it
            step: Any = self._receive()
            try:
                step.send(None)
            except StopIteration as returned:
                if returned.value["type"] == "http.disconnect":
                    self._is_gone = True
                else:  # the end of an empty body: the application may still ask for it
                    self._receive = _beginning_with(returned.value, self._receive)
            finally:
                step.close()
        except Exception:
            self._observer.failed()


def _beginning_with(message: Message, receive: Receive) -> Receive:
    """`receive`, which returns `message` first."""
    messages = [message]

    async def beginning_with() -> Message:
        return messages.pop() if messages else await receive()

    return beginning_with


def _is_cancelled() -> bool:
    """Whether somebody cancelled this task; else the application met a task of its own that was cancelled."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # another library's loop
        return True
    return task is None or task.cancelling() > 0


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
