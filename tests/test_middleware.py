"""What REDMiddleware counts, over raw ASGI."""

import asyncio
import gc
import logging
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from drive_asgi import FakeClock, Message, call, counted, in_flight, reasons, scope_of
from redserve.errors import ModelError, QueueFull
from redserve.middleware import REDMiddleware, set_error, set_model, set_route, trace_exemplar

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
LAST: Message = {"type": "http.response.body", "body": b"x"}
OK = ("_other", "GET", "200", "ok")


def piece(body: bytes = b"piece") -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


def answering(*messages: Message) -> Any:
    """An application that reads its request and sends these messages."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for message in messages:
            await send(message)

    return app


def status(code: int) -> Message:
    return {"type": "http.response.start", "status": code, "headers": []}


@pytest.mark.parametrize(
    ("code", "outcome", "reason"),
    [
        (200, "ok", None),
        (307, "ok", None),
        (404, "client_error", "not_found"),
        (405, "client_error", "method_not_allowed"),
        (422, "client_error", "bad_request"),
        (429, "rejected", "rate_limited"),
        (500, "error", "server_error"),
        (503, "error", "server_error"),
    ],
)
async def test_the_status_decides_outcome_and_reason(
    registry: CollectorRegistry, code: int, outcome: str, reason: str | None
) -> None:
    await call(REDMiddleware(answering(status(code), LAST), registry=registry))

    assert counted(registry) == {("_other", "GET", str(code), outcome): 1}
    assert reasons(registry) == ({} if reason is None else {reason: 1})
    assert in_flight(registry) == 0


async def test_a_request_is_counted_just_before_its_last_piece_is_handed_over(registry: CollectorRegistry) -> None:
    ended_before = []
    app = REDMiddleware(answering(START, piece(), LAST), registry=registry)

    await call(app, on_send=lambda message: ended_before.append(sum(counted(registry).values())))

    assert ended_before == [0, 0, 1]


async def test_a_request_is_received_and_in_flight_while_it_runs(registry: CollectorRegistry) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received = registry.get_sample_value("inference_requests_received_total", {"method": "GET"})
        seen.append((received, in_flight(registry), counted(registry)))
        await send(START)
        await send(LAST)

    await call(REDMiddleware(app, registry=registry))

    assert seen == [(1, 1, {})]
    assert in_flight(registry) == 0


async def test_the_latency_ends_with_the_last_piece_and_leaves_background_work_out(
    registry: CollectorRegistry,
) -> None:
    clock = FakeClock()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        clock.now_s += 1
        await send(START)
        clock.now_s += 2
        await send(piece())
        clock.now_s += 4
        await send(LAST)
        clock.now_s += 100

    await call(REDMiddleware(app, registry=registry, clock=clock))

    labels = {"route": "_other", "method": "GET", "model": "", "outcome": "ok"}
    assert registry.get_sample_value("inference_request_latency_seconds_sum", labels) == 7


async def test_the_first_byte_of_a_stream_is_timed_on_demand(registry: CollectorRegistry) -> None:
    clock = FakeClock()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        clock.now_s += 1
        await send(piece(b""))
        clock.now_s += 2
        await send(piece())
        clock.now_s += 4
        await send(LAST)

    await call(REDMiddleware(app, registry=registry, first_byte=True, clock=clock))

    labels = {"route": "_other", "method": "GET", "model": "", "outcome": "ok"}
    assert registry.get_sample_value("inference_first_byte_seconds_sum", labels) == 3


async def test_an_exception_before_the_response_is_a_500(registry: CollectorRegistry) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("on purpose")

    with pytest.raises(LookupError, match="on purpose"):
        await call(REDMiddleware(app, registry=registry))

    assert counted(registry) == {("_other", "GET", "500", "error"): 1}
    assert reasons(registry) == {"unhandled_exception": 1}
    assert in_flight(registry) == 0


async def test_an_exception_midway_is_aborted_with_the_status_already_sent(registry: CollectorRegistry) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(piece())
        raise LookupError("on purpose")

    with pytest.raises(LookupError, match="on purpose"):
        await call(REDMiddleware(app, registry=registry))

    assert counted(registry) == {("_other", "GET", "200", "error"): 1}
    assert reasons(registry) == {"aborted": 1}
    assert in_flight(registry) == 0


async def test_an_exception_after_the_response_changes_nothing(registry: CollectorRegistry) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(LAST)
        raise LookupError("in a background task")

    with pytest.raises(LookupError, match="background"):
        await call(REDMiddleware(app, registry=registry))

    assert counted(registry) == {OK: 1}
    assert in_flight(registry) == 0


@pytest.mark.parametrize(
    ("messages", "code", "reason"),
    [([], "500", "unhandled_exception"), ([START], "200", "aborted"), ([START, piece()], "200", "aborted")],
)
async def test_returning_without_a_complete_response_counts_like_an_exception(
    registry: CollectorRegistry, messages: list[Message], code: str, reason: str
) -> None:
    await call(REDMiddleware(answering(*messages), registry=registry))

    assert counted(registry) == {("_other", "GET", code, "error"): 1}
    assert reasons(registry) == {reason: 1}
    assert in_flight(registry) == 0


async def test_a_client_seen_leaving_a_stream_is_cancelled_with_499(registry: CollectorRegistry) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(piece())
        await receive()
        assert await receive() == {"type": "http.disconnect"}

    await call(REDMiddleware(app, registry=registry))

    assert counted(registry) == {("_other", "GET", "499", "cancelled"): 1}
    assert reasons(registry) == {"client_disconnected": 1}
    assert in_flight(registry) == 0


async def test_a_client_seen_leaving_is_cancelled_though_the_answer_is_completed(registry: CollectorRegistry) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()
        await send(START)
        await send(LAST)

    await call(REDMiddleware(app, registry=registry))

    assert counted(registry) == {("_other", "GET", "499", "cancelled"): 1}


async def test_a_server_whose_receive_is_not_known_is_not_asked(registry: CollectorRegistry) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        await send(LAST)

    await call(REDMiddleware(app, registry=registry, disconnect_check_s=0))  # this client has left, silently

    assert counted(registry) == {OK: 1}


async def test_a_send_that_finds_the_client_gone_is_cancelled(registry: CollectorRegistry) -> None:
    def break_pipe(message: Message) -> None:
        if message.get("more_body"):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await call(REDMiddleware(answering(START, piece(), LAST), registry=registry), on_send=break_pipe)

    assert counted(registry) == {("_other", "GET", "499", "cancelled"): 1}
    assert in_flight(registry) == 0


async def test_an_application_that_raises_its_own_oserror_is_an_error(registry: CollectorRegistry) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ConnectionRefusedError("the database")

    with pytest.raises(ConnectionRefusedError):
        await call(REDMiddleware(app, registry=registry))

    assert reasons(registry) == {"unhandled_exception": 1}


@pytest.mark.parametrize("messages", [[], [START, piece()]])
async def test_a_cancelled_task_is_cancelled_with_499(registry: CollectorRegistry, messages: list[Message]) -> None:
    is_waiting = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        is_waiting.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(call(REDMiddleware(app, registry=registry)))
    await is_waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert counted(registry) == {("_other", "GET", "499", "cancelled"): 1}
    assert in_flight(registry) == 0


@pytest.mark.parametrize("messages", [[], [START, piece()]])
async def test_a_cancelled_task_of_the_applications_own_is_its_error(
    registry: CollectorRegistry, messages: list[Message]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        await call(REDMiddleware(app, registry=registry))

    assert reasons(registry) == {"aborted" if messages else "unhandled_exception": 1}
    assert in_flight(registry) == 0


async def test_websockets_and_what_is_unknown_pass_through_untouched(registry: CollectorRegistry) -> None:
    given = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        given.append((receive, send))

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None:
        pass

    middleware = REDMiddleware(app, registry=registry)
    await middleware({"type": "websocket", "path": "/metrics"}, receive, send)
    await middleware({"type": "later"}, receive, send)

    assert given == [(receive, send), (receive, send)]
    assert counted(registry) == {}


async def test_an_informational_response_is_not_the_response(registry: CollectorRegistry) -> None:
    await call(REDMiddleware(answering(status(103), status(201), LAST), registry=registry))

    assert counted(registry) == {("_other", "GET", "201", "ok"): 1}


@pytest.mark.parametrize(
    "messages",
    [
        [{**START, "trailers": True}, LAST, {"type": "http.response.trailers", "headers": []}],
        [START, {"type": "http.response.pathsend", "path": "/etc/hostname"}],
        [START, {"type": "http.response.zerocopysend", "file": 3, "more_body": True}, LAST],
        [START, {"type": "http.response.zerocopysend", "file": 3}],
        [{"type": "http.response.debug", "info": {}}, START, LAST],
    ],
    ids=["trailers", "pathsend", "zerocopysend, more", "zerocopysend", "unknown"],
)
async def test_messages_of_extensions_are_understood_and_passed_on(
    registry: CollectorRegistry, messages: list[Message]
) -> None:
    sent = await call(REDMiddleware(answering(*messages), registry=registry))

    assert sent == messages
    assert counted(registry) == {OK: 1}
    assert in_flight(registry) == 0


@pytest.mark.parametrize("path", ["/metrics", "/metrics/"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_metrics_are_answered_and_not_counted(registry: CollectorRegistry, path: str, method: str) -> None:
    app = REDMiddleware(answering(START, LAST), registry=registry)
    await call(app, "/predict")

    sent = await call(app, path, method)

    assert sent[0]["status"] == 200
    assert (b"inference_requests_total{" in sent[1]["body"]) is (method == "GET")
    assert counted(registry) == {OK: 1}


async def test_other_methods_on_the_metrics_path_are_the_applications(registry: CollectorRegistry) -> None:
    app = REDMiddleware(answering(status(204), LAST), registry=registry, excluded_paths=())

    sent = await call(app, "/metrics", "POST")

    assert sent[0]["status"] == 204
    assert counted(registry) == {("_other", "POST", "204", "ok"): 1}


async def test_the_metrics_path_can_be_moved_or_left_to_the_application(registry: CollectorRegistry) -> None:
    moved = REDMiddleware(answering(status(404), LAST), registry=registry, metrics_path="/internal/metrics")
    off = REDMiddleware(answering(status(404), LAST), registry=registry, metrics_path=None)

    assert (await call(moved, "/internal/metrics"))[0]["status"] == 200
    assert (await call(moved, "/metrics"))[0]["status"] == 404
    assert (await call(off, "/metrics"))[0]["status"] == 404


async def test_the_metrics_are_found_below_a_root_path(registry: CollectorRegistry) -> None:
    app = REDMiddleware(answering(status(404), LAST), registry=registry)

    sent = await call(app, scope=scope_of("/api/metrics", root_path="/api"))

    assert sent[0]["status"] == 200
    assert counted(registry) == {}


@pytest.mark.parametrize("path", ["/livez", "/livez/", "/readyz", "/docs", "/openapi.json", "/metrics"])
async def test_excluded_paths_are_in_no_number(registry: CollectorRegistry, path: str) -> None:
    await call(REDMiddleware(answering(START, LAST), registry=registry, metrics_path=None), path)

    assert counted(registry) == {}
    assert registry.get_sample_value("inference_requests_received_total", {"method": "GET"}) is None


async def test_made_up_methods_and_paths_make_no_new_series(registry: CollectorRegistry) -> None:
    app = REDMiddleware(answering(status(404), LAST), registry=registry)
    await call(app, "/a", "MADE-UP")
    series = len(list(samples(registry)))

    for number in range(50):
        await call(app, f"/{number}", f"MADE-UP-{number}")

    assert len(list(samples(registry))) == series
    assert counted(registry) == {("_other", "_other", "404", "client_error"): 51}


async def test_built_twice_over_one_registry_the_numbers_are_the_same_ones(registry: CollectorRegistry) -> None:
    for _ in range(2):
        await call(REDMiddleware(answering(START, LAST), registry=registry))

    assert counted(registry) == {OK: 2}


async def test_a_request_that_passes_two_of_them_is_counted_once(registry: CollectorRegistry) -> None:
    inner = REDMiddleware(answering(START, LAST), registry=registry)

    await call(REDMiddleware(inner, registry=registry))

    assert counted(registry) == {OK: 1}
    assert registry.get_sample_value("inference_requests_received_total", {"method": "GET"}) == 1


async def test_two_namespaces_each_count_the_request(registry: CollectorRegistry) -> None:
    inner = REDMiddleware(answering(START, LAST), registry=registry, namespace="inner")

    await call(REDMiddleware(inner, registry=registry))

    assert counted(registry) == counted(registry, "inner") == {OK: 1}


async def test_what_is_named_from_code_is_named_for_both_of_two_namespaces(registry: CollectorRegistry) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        set_model(scope, "digits")
        set_route(scope, "/predict/{model}")
        set_error(scope, QueueFull(waiting=3, limit=3))
        await send(status(503))
        await send(LAST)

    inner = REDMiddleware(app, registry=registry, namespace="inner")
    await call(REDMiddleware(inner, registry=registry))

    assert counted(registry) == counted(registry, "inner") == {("/predict/{model}", "GET", "503", "rejected"): 1}
    models = {sample.labels["model"] for sample in samples(registry) if sample.name.endswith("_requests_total")}
    assert models == {"digits"}


async def test_a_request_is_counted_once_around_and_inside_of_another_namespace(registry: CollectorRegistry) -> None:
    innermost = REDMiddleware(answering(START, LAST), registry=registry)
    inner = REDMiddleware(innermost, registry=registry, namespace="inner")

    await call(REDMiddleware(inner, registry=registry))

    assert counted(registry) == counted(registry, "inner") == {OK: 1}


async def test_model_route_and_reason_can_be_named_from_code(registry: CollectorRegistry) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        copied = dict(scope)  # as some middleware do
        set_model(copied, "digits")
        set_route(copied, "/predict/{model}")
        set_error(copied, QueueFull(waiting=3, limit=3))
        await send(status(503))
        await send(LAST)

    await call(REDMiddleware(app, registry=registry), "/predict/digits", "POST")

    assert counted(registry) == {("/predict/{model}", "POST", "503", "rejected"): 1}
    labels = {"route": "/predict/{model}", "model": "digits", "reason": "queue_full"}
    assert registry.get_sample_value("inference_errors_total", labels) == 1


async def test_naming_things_takes_requests_and_does_nothing_without_the_middleware() -> None:
    class Request:
        scope = scope_of()

    set_model(Request(), "digits")
    set_route(scope_of(), "/predict")
    set_error(Request(), ModelError())

    assert Request.scope == scope_of()


async def test_a_reason_that_is_no_text_is_counted_as_its_text(registry: CollectorRegistry) -> None:
    class Broken(ModelError):
        reason = 7  # type: ignore[assignment]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        set_error(scope, Broken())
        await answering({**START, "status": 500.0}, LAST)(scope, receive, send)

    await call(REDMiddleware(app, registry=registry))

    assert counted(registry) == {("_other", "GET", "500", "error"): 1}
    assert reasons(registry) == {"7": 1}
    assert in_flight(registry) == 0


async def test_a_named_error_that_is_raised_keeps_its_reason_and_is_a_500(registry: CollectorRegistry) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        error = ModelError("on purpose")
        set_error(scope, error)
        raise error

    with pytest.raises(ModelError):
        await call(REDMiddleware(app, registry=registry))

    assert counted(registry) == {("_other", "GET", "500", "error"): 1}
    assert reasons(registry) == {"model_error": 1}


async def test_the_exemplar_is_kept_with_its_request(registry: CollectorRegistry) -> None:
    app = REDMiddleware(answering(START, LAST), registry=registry, exemplar=lambda scope: {"path": scope["path"]})

    await call(app, "/here")

    assert {"path": "/here"} in [sample.exemplar.labels for sample in samples(registry) if sample.exemplar]


async def test_the_labels_of_an_exemplar_may_be_numbers(registry: CollectorRegistry) -> None:
    app = REDMiddleware(answering(START, LAST), registry=registry, exemplar=lambda scope: {"user": 7})

    await call(app)

    assert {"user": "7"} in [sample.exemplar.labels for sample in samples(registry) if sample.exemplar]


async def test_an_exemplar_that_fails_fails_nothing_else(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    def exemplar(scope: Any) -> dict[str, str]:
        raise LookupError("on purpose")

    app = REDMiddleware(answering(START, LAST), registry=registry, exemplar=exemplar)
    for _ in range(3):
        assert await call(app) == [START, LAST]

    assert counted(registry) == {OK: 3}
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_request_is_counted_although_its_exemplar_is_too_long(registry: CollectorRegistry) -> None:
    app = REDMiddleware(answering(START, LAST), registry=registry, exemplar=lambda scope: {"trace_id": "x" * 200})

    assert await call(app) == [START, LAST]
    assert counted(registry) == {OK: 1}
    assert in_flight(registry) == 0


def test_the_trace_exemplar_is_the_sampled_span() -> None:
    trace = pytest.importorskip("opentelemetry.trace")

    def current(flags: Any) -> Any:
        context = trace.SpanContext(trace_id=10, span_id=11, is_remote=False, trace_flags=trace.TraceFlags(flags))
        with trace.use_span(trace.NonRecordingSpan(context)):
            return trace_exemplar({})

    assert current(1) == {"trace_id": f"{10:032x}", "span_id": f"{11:016x}"}
    assert current(0) is None
    assert trace_exemplar({}) is None


@pytest.mark.parametrize("broken", ["received", "finished", "first_byte"])
async def test_instruments_that_raise_fail_no_request_and_are_logged_once(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise LookupError("on purpose")

    app = REDMiddleware(answering(START, piece(), LAST), registry=registry, first_byte=True)
    monkeypatch.setattr(app.observer, broken, fail)
    for _ in range(3):
        assert await call(app) == [START, piece(), LAST]

    assert [(record.name, record.levelname) for record in caplog.records] == [("redserve.middleware", "WARNING")]


@pytest.mark.parametrize("readings", [0, 1])
async def test_a_clock_that_fails_fails_no_request(registry: CollectorRegistry, readings: int) -> None:
    times = iter([0.0] * readings)

    assert await call(REDMiddleware(answering(START, LAST), registry=registry, clock=times.__next__)) == [START, LAST]


async def test_a_named_route_and_model_of_any_type_leave_nothing_in_flight(registry: CollectorRegistry) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        set_model(scope, ["not", "a", "name"])  # type: ignore[arg-type]
        await send(START)
        await send(LAST)

    await call(REDMiddleware(app, registry=registry))

    assert in_flight(registry) == 0


async def test_a_request_leaves_no_garbage(registry: CollectorRegistry) -> None:
    app = REDMiddleware(answering(START, LAST), registry=registry)
    await call(app)
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            await call(app)
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "wrong",
    [{"disconnect_check_s": -1}, {"metrics_path": "metrics"}, {"excluded_paths": "/livez"}, {"buckets": [2, 1]}],
)
def test_wrong_settings_fail_where_they_are_given(registry: CollectorRegistry, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        REDMiddleware(answering(), registry=registry, **wrong)


def samples(registry: CollectorRegistry) -> Any:
    return (sample for metric in registry.collect() for sample in metric.samples)


@pytest.fixture(autouse=True)
def _log_warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
