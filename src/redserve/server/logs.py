"""Logging of the reference server: events with their data, and the access log. Libraries configure no handlers."""

import json
import logging
import sys
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

NO_HTTP = "Invalid HTTP request received."
"""uvicorn's warning of each request that it cannot parse: strangers could fill a disk with it, and metrics count it."""

access_logger = logging.getLogger("redserve.access")

_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "color_message", "asctime"}


class EventFormatter(logging.Formatter):
    """`INFO model is ready model=digits provider=CPUExecutionProvider`: the event, then what `extra` says of it."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback where there is one."""
        data = "".join(f" {key}={value}" for key, value in vars(record).items() if key not in _STANDARD)
        line = f"{record.levelname:<7} {record.getMessage()}{data}"
        if record.exc_info and record.levelno >= logging.ERROR:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line, of what `extra` says."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON, with the time in seconds since 1970."""
        data = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        return json.dumps({"time": round(record.created, 3), "event": record.getMessage(), **data})


def configure_logging(level: str, *names: str) -> None:
    """Send the server's log, and that of further loggers, to standard error, and the access log to standard output."""
    events = logging.StreamHandler(sys.stderr)
    events.setFormatter(EventFormatter())
    events.addFilter(lambda record: record.msg != NO_HTTP)
    for name in ("redserve", *names):
        logger = logging.getLogger(name)
        logger.handlers = [events]
        logger.propagate = False
        logger.setLevel(level.upper())
    access = logging.StreamHandler(sys.stdout)
    access.setFormatter(JsonFormatter())
    access_logger.handlers = [access]
    access_logger.propagate = False
    access_logger.setLevel(logging.INFO)


def log_access(
    client: tuple[str, int] | None, method: str, path: str, status: int, sent_bytes: int, duration_s: float
) -> None:
    """One request that is over."""
    access_logger.info(
        "request",
        extra={
            "client": client[0] if client else None,
            "method": method,
            "path": path,
            "status": status,
            "sent_bytes": sent_bytes,
            "duration_ms": round(1000 * duration_s, 3),
        },
    )


class AccessLog:
    """ASGI middleware that logs each request once it is over, as structured data."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began_s = perf_counter()
        status, sent_bytes = 0, 0

        async def counted(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, counted)
        except BaseException:
            status = status or 500
            raise
        finally:
            log_access(
                scope.get("client"),
                scope["method"],
                scope["path"],
                status or 499,  # nothing was sent: the client had left
                sent_bytes,
                perf_counter() - began_s,
            )
        return None
