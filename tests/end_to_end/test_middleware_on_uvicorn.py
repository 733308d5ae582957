"""REDMiddleware on a real uvicorn, with each of its HTTP parsers: clients that leave, streams that break, scrapes."""

import asyncio
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from live_app import LiveApp
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse

from drive_asgi import counted, in_flight, reasons
from redserve.middleware import REDMiddleware

LIMIT_S = 10.0
Serve = Callable[..., LiveApp]


class Slow:
    """A FastAPI app whose routes wait where the test wants them to."""

    def __init__(self, registry: CollectorRegistry, *, is_inside: bool = False, **settings: Any) -> None:
        self.registry = registry
        self.is_inside = threading.Event()
        self.clients_leave = True
        self.has_ended = threading.Event()
        self.saw_disconnect: bool | None = None
        self.app = FastAPI()
        self.app.add_route("/json", self.json, methods=["GET", "POST"])
        self.app.add_route("/asking", self.asking)
        self.app.add_route("/failing", self.failing)
        self.app.add_route("/stream", self.stream)
        self.app.add_route("/broken", self.broken)
        self.app.add_route("/items/{item_id}", self.item)
        self.watched: Any = self.app
        if is_inside:
            self.app.add_middleware(REDMiddleware, registry=registry, **settings)
        else:
            self.watched = REDMiddleware(self.app, registry=registry, **settings)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self.watched(scope, receive, send)
        finally:
            if scope["type"] == "http":
                self.has_ended.set()

    async def json(self, request: Request) -> JSONResponse:
        await self._wait_for_departure(request)
        return JSONResponse({})

    async def asking(self, request: Request) -> JSONResponse:
        await self._wait_for_departure(request)
        self.saw_disconnect = await request.is_disconnected()
        return JSONResponse({})

    async def failing(self, request: Request) -> JSONResponse:
        await self._wait_for_departure(request)
        raise LookupError("on purpose")

    async def stream(self, request: Request) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"one"
            self.is_inside.set()
            await asyncio.Event().wait()

        return StreamingResponse(pieces())

    async def broken(self, request: Request) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"one"
            raise LookupError("on purpose")

        return StreamingResponse(pieces())

    async def item(self, request: Request) -> JSONResponse:
        return JSONResponse({})

    async def _wait_for_departure(self, request: Request) -> None:
        await request.body()
        self.is_inside.set()
        if self.clients_leave:
            receive = request.receive
            while not hasattr(receive.__self__, "message_event"):
                receive = receive.__self__._receive  # uvicorn's is behind ours
            cycle = receive.__self__
            await cycle.message_event.wait()  # the body is read: what comes now is the departure


@pytest.fixture(params=["httptools", "h11"])
def http(request: pytest.FixtureRequest) -> str:
    parser: str = request.param
    return parser


@contextmanager
def connected(live: LiveApp, path: str, *, method: str = "GET", headers: str = "") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", live.port), LIMIT_S) as client:
        client.sendall(f"{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n".encode())
        yield client


def leave(live: LiveApp, slow: Slow, path: str, **request: Any) -> None:
    """Ask for `path`, leave while it is at work, and wait until the server is done with it."""
    with connected(live, path, **request):
        assert slow.is_inside.wait(LIMIT_S)
    assert slow.has_ended.wait(LIMIT_S)


def test_a_client_that_leaves_a_slow_json_answer_is_a_499(registry: CollectorRegistry, serve: Serve, http: str) -> None:
    slow = Slow(registry, disconnect_check_s=0)

    leave(serve(slow, http=http), slow, "/json")

    assert counted(registry) == {("/json", "GET", "499", "cancelled"): 1}
    assert reasons(registry) == {"client_disconnected": 1}
    assert in_flight(registry) == 0


def test_a_client_that_leaves_after_its_body_was_read_is_a_499(
    registry: CollectorRegistry, serve: Serve, http: str
) -> None:
    slow = Slow(registry, disconnect_check_s=0)

    leave(serve(slow, http=http), slow, "/json", method="POST", headers="Content-Length: 0\r\n")

    assert counted(registry) == {("/json", "POST", "499", "cancelled"): 1}


@pytest.mark.parametrize("is_inside", [True, False])
def test_a_client_that_left_before_an_exception_is_a_499_wherever_the_middleware_sits(
    registry: CollectorRegistry, serve: Serve, http: str, is_inside: bool
) -> None:
    slow = Slow(registry, is_inside=is_inside, disconnect_check_s=0)

    leave(serve(slow, http=http), slow, "/failing")

    assert counted(registry) == {("/failing", "GET", "499", "cancelled"): 1}
    assert in_flight(registry) == 0


@pytest.mark.parametrize("is_inside", [True, False])
def test_an_exception_while_the_client_waits_is_a_500(
    registry: CollectorRegistry, serve: Serve, http: str, is_inside: bool
) -> None:
    slow = Slow(registry, is_inside=is_inside, disconnect_check_s=0)
    slow.clients_leave = False

    with connected(serve(slow, http=http), "/failing", headers="Connection: close\r\n") as client:
        assert client.recv(65536).startswith(b"HTTP/1.1 500")

    assert reasons(registry) == {"unhandled_exception": 1}


def test_without_the_check_the_status_stands(registry: CollectorRegistry, serve: Serve, http: str) -> None:
    slow = Slow(registry, disconnect_check_s=None)

    leave(serve(slow, http=http), slow, "/json")

    assert counted(registry) == {("/json", "GET", "200", "ok"): 1}


def test_below_the_threshold_nobody_asks(registry: CollectorRegistry, serve: Serve, http: str) -> None:
    slow = Slow(registry, disconnect_check_s=3600)

    leave(serve(slow, http=http), slow, "/json")

    assert counted(registry) == {("/json", "GET", "200", "ok"): 1}


@pytest.mark.parametrize("path", ["/json", "/items/7"])
def test_a_client_that_stays_is_never_a_499(registry: CollectorRegistry, serve: Serve, http: str, path: str) -> None:
    slow = Slow(registry, disconnect_check_s=0)
    slow.clients_leave = False
    live = serve(slow, http=http)

    for _ in range(20):
        assert live.get(path) == "{}"

    ((labels, requests),) = counted(registry).items()
    assert labels[2:] == ("200", "ok")
    assert requests == 20


def test_several_requests_on_one_connection_survive_the_check(
    registry: CollectorRegistry, serve: Serve, http: str
) -> None:
    live = serve(Slow(registry, disconnect_check_s=0), http=http)
    request = b"POST /items/7 HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n{}"

    with socket.create_connection(("127.0.0.1", live.port), LIMIT_S) as client:
        client.sendall(request * 5)
        received = b""
        while received.count(b"HTTP/1.1 405") < 5:
            piece = client.recv(65536)
            assert piece, received
            received += piece

    assert counted(registry) == {("/items/{item_id}", "POST", "405", "client_error"): 5}


def test_is_disconnected_still_works_inside(registry: CollectorRegistry, serve: Serve, http: str) -> None:
    slow = Slow(registry)

    leave(serve(slow, http=http), slow, "/asking")

    assert slow.saw_disconnect is True
    assert counted(registry) == {("/asking", "GET", "499", "cancelled"): 1}


def test_a_client_that_leaves_a_stream_is_a_499(registry: CollectorRegistry, serve: Serve, http: str) -> None:
    slow = Slow(registry)

    leave(serve(slow, http=http), slow, "/stream")

    assert counted(registry) == {("/stream", "GET", "499", "cancelled"): 1}
    assert in_flight(registry) == 0


def test_a_stream_that_breaks_off_is_aborted(registry: CollectorRegistry, serve: Serve, http: str) -> None:
    slow = Slow(registry)
    live = serve(slow, http=http)

    with connected(live, "/broken") as client:
        while client.recv(65536):
            pass
        assert slow.has_ended.wait(LIMIT_S)

    assert counted(registry) == {("/broken", "GET", "200", "error"): 1}
    assert reasons(registry) == {"aborted": 1}


def test_floods_of_made_up_paths_and_methods_make_one_series(
    registry: CollectorRegistry, serve: Serve, http: str
) -> None:
    live = serve(Slow(registry), http=http)

    methods = ["GET", "PROPFIND", "MKCOL", "REPORT"]
    for number in range(60):
        request = f"/nothing/{number}"
        with connected(live, request, method=methods[number % 4], headers="Connection: close\r\n") as client:
            while client.recv(65536):
                pass

    assert counted(registry) == {
        ("_other", "GET", "404", "client_error"): 15,
        ("_other", "_other", "404", "client_error"): 45,
    }


def test_a_scrape_sees_the_request_just_made(registry: CollectorRegistry, serve: Serve, http: str) -> None:
    live = serve(Slow(registry), http=http)

    for number in range(1, 21):
        live.get("/items/7")
        scraped = live.get("/metrics")
        (requests,) = re.findall(r"^inference_requests_total{.*} (\S+)$", scraped, re.MULTILINE)
        assert float(requests) == number
    assert "inference_requests_in_flight 0" in scraped


def test_what_the_check_took_from_the_server_is_given_to_the_application(
    registry: CollectorRegistry, serve: Serve, http: str
) -> None:
    received = []
    has_ended = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        received.extend([await receive(), await receive()])
        has_ended.set()

    serve(REDMiddleware(app, registry=registry, disconnect_check_s=0), http=http, lifespan="off").get("/")

    assert has_ended.wait(LIMIT_S)
    assert received == [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]
    assert counted(registry) == {("_other", "GET", "200", "ok"): 1}
