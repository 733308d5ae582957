"""How an application tells its clients of the errors of this package, which `@batched` raises into its handlers.

RedserveError ─> answer_error ─> its status, its headers, {"error": {"reason", "message"}}; counted as what it is
"""

import json
import math
from typing import Any

from redserve.errors import MethodNotAllowed, Overloaded, RedserveError, Rejected
from redserve.metrics.exposition import Receive, Scope, Send
from redserve.middleware import set_error


async def answer_error(request: Any, error: Any) -> Any:
    """An exception handler for Starlette and FastAPI: `app.add_exception_handler(RedserveError, answer_error)`.

    A full queue is answered with 503 and `Retry-After`, and counted as `rejected`; without a handler a client gets 500,
    for which `REDMiddleware` has only `unhandled_exception`.

    Args:
        request: Starlette's.
        error: A `RedserveError`.

    Returns:
        The response, an ASGI application.
    """
    set_error(request, error)
    body = json.dumps({"error": {"reason": error.reason, "message": str(error)}}).encode()
    return _Answer(error.status, [(b"content-type", b"application/json"), *headers_of(error)], body)


def headers_of(error: RedserveError) -> list[tuple[bytes, bytes]]:
    """What the client of an error is told beside its status: when to try again, what is allowed."""
    headers = []
    if isinstance(error, Rejected):
        retry_after_s = (error.retry_after_s or 0.0) if isinstance(error, Overloaded) else 0.0
        headers.append((b"retry-after", str(max(math.ceil(retry_after_s), 1)).encode()))  # whole seconds: RFC 9110
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    return headers


class _Answer:
    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self._status = status
        self._headers = [*headers, (b"content-length", str(len(body)).encode())]
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
        await send({"type": f"{response}.start", "status": self._status, "headers": self._headers})
        await send({"type": f"{response}.body", "body": self._body})
