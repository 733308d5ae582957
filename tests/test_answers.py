"""`answer_error`: what clients are told, and what is counted, where an application batches by itself."""

import asyncio
from collections import Counter
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from drive_asgi import counted, reasons
from redserve import (
    DeadlineExpired,
    MethodNotAllowed,
    ModelError,
    QueueFull,
    REDMiddleware,
    RedserveError,
    answer_error,
    batched,
)


def app_that_raises(kind: type[Any], error: Exception, registry: CollectorRegistry) -> Any:
    async def fails(request: Request) -> PlainTextResponse:
        raise error

    app = kind()
    app.add_middleware(REDMiddleware, registry=registry)
    app.add_exception_handler(RedserveError, answer_error)
    app.add_route("/", fails)
    return app


async def get(app: Any) -> httpx2.Response:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        return await client.get("/")


@pytest.mark.parametrize("kind", [Starlette, FastAPI])
@pytest.mark.parametrize(
    ("error", "status", "header", "outcome", "reason"),
    [
        (QueueFull(waiting=8, limit=8, retry_after_s=2.5), 503, ("retry-after", "3"), "rejected", "queue_full"),
        (DeadlineExpired(), 504, None, "expired", "deadline_expired"),
        (ModelError("broken"), 500, None, "error", "model_error"),
        (
            MethodNotAllowed("PUT", allowed=("GET", "HEAD")),
            405,
            ("allow", "GET, HEAD"),
            "client_error",
            "method_not_allowed",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_an_error_is_answered_and_counted_as_what_it_is(
    kind: type[Any], error: Exception, status: int, header: Any, outcome: str, reason: str, registry: CollectorRegistry
) -> None:
    answer = await get(app_that_raises(kind, error, registry))

    assert answer.status_code == status
    assert answer.json() == {"error": {"reason": reason, "message": str(error)}}
    assert answer.headers["content-length"] == str(len(answer.content))
    assert header is None or answer.headers[header[0]] == header[1]
    assert counted(registry) == {("/", "GET", str(status), outcome): 1}
    assert reasons(registry) == {reason: 1}


async def test_a_full_queue_of_a_batched_function_is_503_and_rejected(registry: CollectorRegistry) -> None:
    goes_on = asyncio.Event()

    @batched(max_batch_size=1, max_queue_rows=1)
    async def slow(items: list[int]) -> list[int]:
        await goes_on.wait()
        return items

    app = FastAPI()
    app.add_middleware(REDMiddleware, registry=registry)
    app.add_exception_handler(RedserveError, answer_error)

    @app.get("/")
    async def ask() -> int:
        return await slow(1)

    asked = [asyncio.create_task(get(app)) for _ in range(4)]
    done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    goes_on.set()
    statuses = Counter([(await task).status_code for task in asked])
    await slow.aclose()

    assert set(statuses) == {200, 503}
    assert {(await task).json()["error"]["reason"] for task in done} == {"queue_full"}
    assert counted(registry) == {
        ("/", "GET", "200", "ok"): statuses[200],
        ("/", "GET", "503", "rejected"): statuses[503],
    }


async def test_a_websocket_that_was_not_accepted_is_refused_as_such() -> None:
    app = Starlette()
    app.add_exception_handler(RedserveError, answer_error)
    sent: list[Any] = []

    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise QueueFull(waiting=8, limit=8)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    app.router.default = fails
    scope = {"type": "websocket", "path": "/", "headers": [], "extensions": {"websocket.http.response": {}}}
    await app(scope, receive, send)

    assert [message["type"] for message in sent] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert sent[0]["status"] == 503
