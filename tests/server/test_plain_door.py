"""The short way by ASGI: who takes it, who sees the requests all the same, and how they end."""

import asyncio
import logging
import sys
import types
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.applications import Starlette
from starlette.routing import Mount

from drive_asgi import call, counted, in_flight, reasons, scope_of
from puppet_engine import PuppetEngine
from redserve.middleware import REDMiddleware
from redserve.server import Settings, create_app

BODY = b'{"instances": [[1, 2]]}'
WHOLE = {"type": "http.request", "body": BODY, "more_body": False}
ANSWER = b'{"predictions":[[2.0,4.0]]}'
OK = ("/predict", "POST", "200", "ok")


class Watched:
    """A middleware of somebody else's."""

    def __init__(self, app):
        self.app = app
        self.paths = []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            self.paths.append(scope["path"])
        await self.app(scope, receive, send)


Watched.__module__ = "somebody.elses"


def post(path="/predict", body=BODY, **extra):
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    return scope_of(path, "POST", headers=headers, **extra)


async def answer_of(app, scope=None, body=BODY):
    incoming = [{"type": "http.request", "body": body, "more_body": False}]
    return await call(app, scope=scope or post(body=body), incoming=incoming, stays=True)


@pytest.fixture
def engine():
    return PuppetEngine()


@pytest.fixture
def app(engine, registry, monkeypatch):
    monkeypatch.delitem(sys.modules, "opentelemetry.sdk", raising=False)
    return create_app(Settings.load({"access_log": True}), engines={"puppet": lambda: engine}, registry=registry)


@asynccontextmanager
async def running(app, path="/livez"):
    """The application, loaded; lists the paths that go the long way."""
    door, long = app.plain_door, []
    go_on = door.app

    async def long_way(scope, receive, send):
        long.append(scope["path"])
        await go_on(scope, receive, send)

    door.app = long_way
    async with app.router.lifespan_context(app):
        await app.state.redserve.loaded.wait()
        await call(app, path)  # which builds the middleware
        long.clear()
        yield long


async def test_a_plain_request_takes_the_short_way_and_is_counted_once(app, registry):
    async with running(app) as long:
        start, body = await answer_of(app)

    assert long == []
    assert (start["status"], body["body"]) == (200, ANSWER)
    assert counted(registry) == {OK: 1}
    assert in_flight(registry) == 0


@pytest.mark.parametrize("body", [BODY, b"{", b'{"instances": [[-1, 0]]}', b'{"instances": [[1]]}'])
@pytest.mark.parametrize("path", ["/predict", "/predict/puppet", "/predict/nobody", "/v2/models/puppet/infer"])
async def test_both_ways_give_the_same_answer_and_the_same_numbers(engine, registry, app, body, path):
    answers, numbers = [], []
    async with running(app):
        for door in (app.plain_door, None):
            app.plain_door = door
            before = counted(registry), reasons(registry)
            start, rest = await answer_of(app, post(path, body), body)
            start["headers"] = [header for header in start["headers"] if header[0] != b"server-timing"]
            answers.append((start, rest))
            after = counted(registry), reasons(registry)
            numbers.append(
                [{key: now[key] - was.get(key, 0) for key in now} for was, now in zip(before, after, strict=True)]
            )

    assert answers[0] == answers[1]
    changes = [[{key: value for key, value in each.items() if value} for each in one] for one in numbers]
    assert changes[0] == changes[1]


@pytest.mark.parametrize(
    "scope",
    [
        scope_of("/predict", "GET"),
        scope_of("/predict", "POST", headers=[]),
        scope_of("/predict", "POST", headers=[(b"content-length", b"100000")]),
    ],
    ids=["another method", "a length that is not known", "a large body"],
)
async def test_whatever_is_not_plain_takes_the_long_way(app, scope):
    async with running(app) as long:
        start, _ = await answer_of(app, scope)

    assert long == ["/predict"]
    assert start["status"] == (405 if scope["method"] == "GET" else 200)


async def test_a_body_in_pieces_takes_the_long_way_with_all_its_pieces(app, registry):
    pieces = [{"type": "http.request", "body": BODY[:9], "more_body": True}, {**WHOLE, "body": BODY[9:]}]
    async with running(app) as long:
        _, body = await call(app, scope=post(), incoming=pieces, stays=True)

    assert long == ["/predict"]
    assert body["body"] == ANSWER
    assert counted(registry) == {OK: 1}


async def test_a_body_that_comes_later_takes_the_long_way(app):
    pieces = asyncio.Queue()
    sent = []

    async def send(message):
        sent.append(message)

    async with running(app) as long:
        request = asyncio.create_task(app(post(), pieces.get, send))
        await asyncio.sleep(0)
        pieces.put_nowait(WHOLE)
        await request

    assert long == ["/predict"]
    assert sent[1]["body"] == ANSWER


@pytest.mark.parametrize("key", [b"the-right-key-for-it", b"a-wrong-key-for-it"])
async def test_only_who_has_the_key_takes_the_short_way(engine, registry, key):
    settings = Settings.load({"inference_keys": "the-right-key-for-it"})
    app = create_app(settings, engines={"puppet": lambda: engine}, registry=registry)
    scope = post()
    scope["headers"].append((b"x-api-key", key))
    async with running(app) as long:
        start, _ = await answer_of(app, scope)

    assert (start["status"], long) == ((200, []) if b"right" in key else (401, ["/predict"]))


async def test_middleware_that_was_added_sees_every_request(app):
    seen = []

    class Added(Watched):
        def __init__(self, app):
            super().__init__(app)
            self.paths = seen

    app.add_middleware(Added)
    async with running(app):
        start, _ = await answer_of(app)

    assert start["status"] == 200
    assert seen == ["/livez", "/predict"]


async def test_who_wraps_the_middleware_stack_sees_every_request(app):
    build = app.build_middleware_stack
    app.build_middleware_stack = types.MethodType(lambda self: Watched(build()), app)  # as OpenTelemetry does
    async with running(app):
        await answer_of(app)

    assert app.middleware_stack.paths == ["/livez", "/predict"]


async def test_who_replaces_starlettes_call_sees_every_request(app, monkeypatch):
    seen, original = [], Starlette.__call__

    async def patched(self, scope, receive, send):
        seen.append(scope["path"])
        await original(self, scope, receive, send)

    monkeypatch.setattr(Starlette, "__call__", patched)  # as Sentry does
    async with running(app):
        await answer_of(app)

    assert seen == ["/livez", "/predict"]


async def test_fastapis_own_telemetry_sees_every_request_once_an_sdk_is_loaded(app, monkeypatch):
    async with running(app):
        short = []
        app.plain_door = lambda scope, receive, send: short.append(scope)
        monkeypatch.setitem(sys.modules, "opentelemetry.sdk", types.ModuleType("opentelemetry.sdk"))
        start, _ = await answer_of(app)

    assert start["status"] == 200
    assert short == []


@pytest.mark.parametrize("parent", [FastAPI, Starlette])
async def test_an_application_that_is_mounted_answers_and_counts(app, registry, parent):
    outer = parent(routes=[Mount("/models", app=app)])
    async with running(app):
        start, body = await answer_of(outer, post("/models/predict"))

    assert (start["status"], body["body"]) == (200, ANSWER)
    assert counted(registry) == {OK: 1}


async def test_the_prefix_of_a_proxy_is_no_part_of_the_path(app, registry):
    async with running(app) as long:
        start, _ = await answer_of(app, post("/models/predict", root_path="/models"))

    assert (start["status"], long) == (200, [])
    assert counted(registry) == {OK: 1}


async def test_a_request_that_a_middleware_around_counts_is_counted_once(app, registry):
    around = REDMiddleware(app, registry=registry, metrics_path=None)
    async with running(app):
        await answer_of(around)

    assert counted(registry)[OK] == 1


async def test_the_least_that_asgi_asks_of_a_scope_is_enough(app, registry):
    scope = post()
    for key in ("client", "server", "root_path", "scheme", "raw_path"):
        del scope[key]
    async with running(app) as long:
        start, _ = await answer_of(app, scope)

    assert (start["status"], long) == (200, [])


async def test_a_client_that_leaves_takes_its_rows_along(app, engine, registry):
    async with running(app) as long:
        engine.ran_rows.clear()
        engine.shut()
        first = asyncio.create_task(answer_of(app))
        await asyncio.to_thread(engine.began.wait)
        sent = await call(app, scope=post(), incoming=[WHOLE])  # says disconnect once the body is read
        engine.open()
        start, _ = await first

    assert (start["status"], sent, long) == (200, [], [])
    assert counted(registry) == {OK: 1, ("/predict", "POST", "499", "cancelled"): 1}
    assert reasons(registry) == {"client_disconnected": 1}
    assert engine.ran_rows == [1]
    assert in_flight(registry) == 0


async def test_a_request_that_is_cancelled_takes_its_rows_along(app, engine, registry):
    async with running(app):
        engine.ran_rows.clear()
        engine.shut()
        first = asyncio.create_task(answer_of(app))
        await asyncio.to_thread(engine.began.wait)
        second = asyncio.create_task(answer_of(app))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        engine.open()
        await first

    assert counted(registry) == {OK: 1, ("/predict", "POST", "499", "cancelled"): 1}
    assert engine.ran_rows == [1]


async def test_a_client_that_is_gone_when_its_answer_comes_is_counted_as_that(app, registry):
    def gone(message):
        raise BrokenPipeError

    async with running(app):
        with pytest.raises(BrokenPipeError):
            await call(app, scope=post(), incoming=[WHOLE], stays=True, on_send=gone)

    assert counted(registry) == {("/predict", "POST", "499", "cancelled"): 1}


async def test_a_request_is_counted_before_its_last_byte_leaves(app, registry):
    seen = []
    async with running(app):
        await call(
            app,
            scope=post(),
            incoming=[WHOLE],
            stays=True,
            on_send=lambda message: seen.append((message["type"], counted(registry).get(OK))),
        )

    assert seen == [("http.response.start", None), ("http.response.body", 1)]


async def test_a_failure_of_the_servers_own_goes_to_the_applications_handlers(app, registry, monkeypatch):
    @app.exception_handler(Exception)
    async def handle(request, error):
        return JSONResponse({"told": str(error)}, 500)

    def fail(*arguments, **more):
        raise LookupError("by accident")

    sent = []
    async with running(app):
        monkeypatch.setattr(app.plain_door, "_service", types.SimpleNamespace(infer=fail))
        with pytest.raises(LookupError):
            await call(app, scope=post(), incoming=[WHOLE], stays=True, on_send=sent.append)

    assert sent[0]["status"] == 500
    assert sent[1]["body"] == b'{"told":"by accident"}'
    assert reasons(registry) == {"unhandled_exception": 1}
    assert in_flight(registry) == 0


async def test_requests_by_the_short_way_are_logged(app):
    records = []
    handler, logger = logging.Handler(), logging.getLogger("redserve.access")
    handler.emit = records.append
    async with running(app):
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            await answer_of(app, post("/models/predict", root_path="/models"))
        finally:
            logger.removeHandler(handler)

    (record,) = records
    assert (record.path, record.status, record.sent_bytes) == ("/models/predict", 200, len(ANSWER))
