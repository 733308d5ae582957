"""REDMiddleware inside and outside of Starlette and FastAPI, and what their own parts still see."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

from drive_asgi import Message, call, counted, in_flight, reasons, scope_of
from redserve.metrics import metrics_app
from redserve.middleware import REDMiddleware, set_model

Watch = Callable[[Any, CollectorRegistry], Any]


def added(app: Any, registry: CollectorRegistry) -> Any:
    """Inside of ServerErrorMiddleware: exceptions pass through us before they become a response."""
    app.add_middleware(REDMiddleware, registry=registry)
    return app


def around(app: Any, registry: CollectorRegistry) -> Any:
    """Outside of everything: exceptions have become a response, and pass through us afterwards."""
    return REDMiddleware(app, registry=registry)


inside_and_outside = pytest.mark.parametrize("watch", [added, around])


async def fail(request: Request) -> PlainTextResponse:
    raise LookupError("on purpose")


async def fail_midway(request: Request) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        raise LookupError("on purpose")

    return StreamingResponse(pieces())


async def fail_afterwards(request: Request) -> PlainTextResponse:
    async def task() -> None:
        raise LookupError("on purpose")

    return PlainTextResponse("done", background=BackgroundTask(task))


async def stream(request: Request) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    return StreamingResponse(pieces())


def starlette_app() -> Starlette:
    endpoints: list[Callable[[Request], Awaitable[Any]]] = [fail, fail_midway, fail_afterwards, stream]
    return Starlette(routes=[Route(f"/{endpoint.__name__}", endpoint) for endpoint in endpoints])


@inside_and_outside
async def test_an_unhandled_exception_is_a_500_wherever_the_middleware_sits(
    registry: CollectorRegistry, watch: Watch
) -> None:
    sent: list[Message] = []
    with pytest.raises(LookupError, match="on purpose"):
        await call(watch(starlette_app(), registry), "/fail", on_send=sent.append)

    assert sent[0]["status"] == 500
    assert counted(registry) == {("/fail", "GET", "500", "error"): 1}
    assert reasons(registry) == {"unhandled_exception": 1}
    assert in_flight(registry) == 0


@inside_and_outside
async def test_a_stream_that_breaks_off_is_aborted_wherever_the_middleware_sits(
    registry: CollectorRegistry, watch: Watch
) -> None:
    with pytest.raises(LookupError, match="on purpose"):
        await call(watch(starlette_app(), registry), "/fail_midway", stays=True)

    assert counted(registry) == {("/fail_midway", "GET", "200", "error"): 1}
    assert reasons(registry) == {"aborted": 1}
    assert in_flight(registry) == 0


@inside_and_outside
async def test_a_failing_background_task_leaves_the_answer_ok(registry: CollectorRegistry, watch: Watch) -> None:
    with pytest.raises(LookupError, match="on purpose"):
        await call(watch(starlette_app(), registry), "/fail_afterwards")

    assert counted(registry) == {("/fail_afterwards", "GET", "200", "ok"): 1}
    assert in_flight(registry) == 0


@inside_and_outside
async def test_a_stream_is_one_request(registry: CollectorRegistry, watch: Watch) -> None:
    sent = await call(watch(starlette_app(), registry), "/stream", stays=True)

    assert [message.get("body") for message in sent] == [None, b"one", b"two", b""]
    assert counted(registry) == {("/stream", "GET", "200", "ok"): 1}


@inside_and_outside
async def test_a_500_that_the_application_answers_itself_is_a_server_error(
    registry: CollectorRegistry, watch: Watch
) -> None:
    async def broken(request: Request) -> PlainTextResponse:
        return PlainTextResponse("sorry", 500)

    async def handle(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse("sorry", 500)

    app = Starlette(routes=[Route("/broken", broken), Route("/fail", fail)], exception_handlers={LookupError: handle})
    watched = watch(app, registry)
    await call(watched, "/broken")
    await call(watched, "/fail")

    assert reasons(registry) == {"server_error": 1}
    assert sum(counted(registry).values()) == 2


@inside_and_outside
async def test_fastapi_routes_bodies_and_validation_errors(registry: CollectorRegistry, watch: Watch) -> None:
    class Row(BaseModel):
        x: float

    app = FastAPI()

    @app.post("/rows/{row_id}")
    async def handler(request: Request, row_id: int, row: Row) -> dict[str, float]:
        set_model(request, "linear")
        return {"y": 2 * row.x}

    watched = watch(app, registry)
    for body in (b'{"x": 1}', b'{"x": "no"}'):
        scope = scope_of("/rows/7", "POST", headers=[(b"content-type", b"application/json")])
        await call(watched, scope=scope, incoming=[{"type": "http.request", "body": body}])

    assert counted(registry) == {
        ("/rows/{row_id}", "POST", "200", "ok"): 1,
        ("/rows/{row_id}", "POST", "422", "client_error"): 1,
    }
    labels = {"route": "/rows/{row_id}", "method": "POST", "model": "linear", "outcome": "ok"}
    assert registry.get_sample_value("inference_request_latency_seconds_count", labels) == 1


@inside_and_outside
async def test_a_request_still_finds_out_that_its_client_has_left(registry: CollectorRegistry, watch: Watch) -> None:
    seen = []

    async def endpoint(request: Request) -> JSONResponse:
        await request.body()
        seen.append(await request.is_disconnected())
        return JSONResponse({})

    app = Starlette(routes=[Route("/", endpoint)])
    await call(watch(app, registry))

    assert seen == [True]
    assert counted(registry) == {("/", "GET", "499", "cancelled"): 1}


@inside_and_outside
async def test_the_function_kind_of_middleware_may_sit_below(registry: CollectorRegistry, watch: Watch) -> None:
    async def dispatch(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    app = starlette_app()
    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    await call(watch(app, registry), "/stream", stays=True)

    assert counted(registry) == {("/stream", "GET", "200", "ok"): 1}
    assert in_flight(registry) == 0


@pytest.mark.parametrize(
    ("outer", "options"),
    [(BaseHTTPMiddleware, {"dispatch": lambda request, call_next: call_next(request)}), (GZipMiddleware, {})],
)
async def test_other_middleware_may_sit_around(registry: CollectorRegistry, outer: Any, options: Any) -> None:
    app = added(starlette_app(), registry)
    app.add_middleware(outer, **options)
    for path in ("/stream", "/stream", "/fail"):
        with suppress(LookupError):
            await call(app, path, stays=True)

    assert counted(registry) == {("/stream", "GET", "200", "ok"): 2, ("/fail", "GET", "500", "error"): 1}
    assert reasons(registry) == {"unhandled_exception": 1}
    assert in_flight(registry) == 0


async def test_a_middleware_stack_that_is_built_twice_registers_once(registry: CollectorRegistry) -> None:
    app = added(starlette_app(), registry)
    await call(app, "/stream", stays=True)
    app.middleware_stack = app.build_middleware_stack()

    await call(app, "/stream", stays=True)

    assert counted(registry) == {("/stream", "GET", "200", "ok"): 2}


async def test_the_metrics_app_can_be_a_route_as_well_as_mounted(registry: CollectorRegistry) -> None:
    app = Starlette(routes=[Route("/route", metrics_app(registry)), Mount("/mounted", metrics_app(registry))])

    for path, method, status in [("/route", "GET", 200), ("/route", "POST", 405), ("/mounted/", "HEAD", 200)]:
        assert (await call(app, path, method))[0]["status"] == status


async def test_an_application_that_is_mounted_in_a_middleware_leaves_the_routes_around_it_alone(
    registry: CollectorRegistry,
) -> None:
    async def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.app.url_path_for("item", key=1))

    async def inside(request: Request) -> PlainTextResponse:
        return PlainTextResponse("inside")

    class Opaque:
        routes = object()

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await PlainTextResponse("opaque")(scope, receive, send)

    inner = REDMiddleware(Starlette(routes=[Route("/z/{a}", inside)]), registry=CollectorRegistry())
    app = Starlette(routes=[Mount("/inner", inner), Route("/items/{key}", answer, name="item")])
    app.add_middleware(REDMiddleware, registry=registry)

    (_, item) = await call(app, "/items/3")
    await call(app, "/inner/z/1")
    app.mount("/opaque", Opaque())
    await call(app, "/opaque/x")

    assert item["body"] == b"/items/1"
    assert counted(registry) == {
        ("/items/{key}", "GET", "200", "ok"): 1,
        ("/inner/z/{a}", "GET", "200", "ok"): 1,
        ("/opaque", "GET", "200", "ok"): 1,
    }
