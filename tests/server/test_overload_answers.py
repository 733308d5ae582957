"""Deadlines and overload as a client sees them; the engine is held, so that what waits really waits."""

import asyncio
from time import perf_counter

import pytest
from in_process import client_of

from puppet_engine import PuppetEngine
from redserve import REDMetrics, latency_buckets
from redserve.server import Settings, create_app

ROUTE = {"route": "/predict", "model": "puppet"}
ROW = {"instances": [[1, 2]]}


@pytest.fixture
def engine():
    return PuppetEngine()


def app_of(engine, registry, **settings):
    return create_app(Settings.load(settings), engines={"puppet": lambda: engine}, registry=registry)


def value_of(registry, name, **labels):
    return registry.get_sample_value(f"inference_{name}", labels)


async def begun(engine):
    """A run holds the engine."""
    assert await asyncio.to_thread(engine.began.wait, 20)


async def test_a_request_that_waits_past_its_deadline_is_a_504_that_never_runs(engine, registry):
    async with client_of(app_of(engine, registry)) as client:
        engine.shut()
        engine.ran_rows.clear()
        running = asyncio.create_task(client.post("/predict", json=ROW))
        await begun(engine)

        answer = await client.post("/predict", json=ROW, headers={"X-Request-Timeout-Ms": "50"})
        engine.open()

        assert answer.status_code == 504
        assert answer.json()["error"]["reason"] == "deadline_expired"
        assert (await running).status_code == 200
    assert engine.ran_rows == [1]
    assert value_of(registry, "errors_total", **ROUTE, reason="deadline_expired") == 1
    assert value_of(registry, "requests_total", **ROUTE, method="POST", code="504", outcome="expired") == 1
    assert value_of(registry, "deadline_missed_total", model="puppet") == 0


async def test_an_answer_that_comes_late_is_sent_and_counted_as_ok_and_as_missed(engine, registry, monkeypatch):
    async with client_of(app_of(engine, registry)) as client:
        engine.shut()
        late = asyncio.create_task(client.post("/predict", json=ROW))
        await begun(engine)
        monkeypatch.setattr("redserve.server.call.perf_counter", lambda: perf_counter() + 3600)
        engine.open()
        answer = await late

        assert answer.status_code == 200
        assert answer.json() == {"predictions": [[2.0, 4.0]]}
    assert value_of(registry, "requests_total", **ROUTE, method="POST", code="200", outcome="ok") == 1
    assert value_of(registry, "deadline_missed_total", model="puppet") == 1


async def test_without_a_header_the_budget_is_the_setting_and_a_greedy_header_gets_no_more_than_the_cap(
    engine, registry
):
    app = app_of(engine, registry, request_timeout_ms=50, max_request_timeout_ms=100)
    async with client_of(app) as client:
        engine.shut()
        running = asyncio.create_task(client.post("/predict", json=ROW))
        await begun(engine)

        default = await client.post("/predict", json=ROW)
        capped = await client.post("/predict", json=ROW, headers={"X-Request-Timeout-Ms": "600000"})
        engine.open()
        await running

    assert (default.status_code, capped.status_code) == (504, 504)


@pytest.mark.parametrize("budgets", [["0"], ["-5"], ["soon"], ["1e3"], [""], ["1000", "0"], ["1000", "1000"]])
async def test_a_budget_that_is_not_one_positive_number_is_a_400(engine, registry, budgets):
    async with client_of(app_of(engine, registry)) as client:
        headers = [("X-Request-Timeout-Ms", budget) for budget in budgets]
        answer = await client.post("/predict", json=ROW, headers=headers)

    assert answer.status_code == 400
    assert answer.json()["error"]["reason"] == "bad_request"
    assert "X-Request-Timeout-Ms" in answer.json()["error"]["message"]


@pytest.mark.parametrize("budget", [" 60000 ", "9" * 400])
async def test_a_budget_among_spaces_or_beyond_all_numbers_is_a_budget(engine, registry, budget):
    async with client_of(app_of(engine, registry)) as client:
        answer = await client.post("/predict", json=ROW, headers={"X-Request-Timeout-Ms": budget})

    assert answer.json() == {"predictions": [[2.0, 4.0]]}


async def test_a_budget_too_short_for_anything_is_a_504(engine, registry):
    async with client_of(app_of(engine, registry)) as client:
        answer = await client.post("/predict", json=ROW, headers={"X-Request-Timeout-Ms": "0.0000000001"})

    assert (answer.status_code, answer.json()["error"]["reason"]) == (504, "deadline_expired")


@pytest.mark.parametrize("status", [503, 429])
async def test_a_full_queue_refuses_with_the_status_of_the_settings_and_says_when_to_come_back(
    engine, registry, status
):
    app = app_of(engine, registry, max_queue_rows=1, max_batch_size=1, overload_status=status)
    async with client_of(app) as client:
        engine.shut()
        running = asyncio.create_task(client.post("/predict", json=ROW))
        await begun(engine)
        waiting = asyncio.create_task(client.post("/predict", json=ROW))
        while not app.state.redserve.repository.get("puppet").queued_rows:  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0)

        answer = await client.post("/predict", json=ROW)
        engine.open()
        assert [(await task).status_code for task in (running, waiting)] == [200, 200]

    assert answer.status_code == status
    assert answer.json()["error"]["reason"] == "queue_full"
    assert int(answer.headers["retry-after"]) >= 1
    assert value_of(registry, "requests_total", **ROUTE, method="POST", code=str(status), outcome="rejected") == 1


def learn(app, *, seconds):
    """The model has taken so long for a row, and not what the warm-up said."""
    cost = app.state.redserve.repository.get("puppet")._batcher._dispatcher._admission._cost
    for _ in range(20):
        cost.observe(rows=1, seconds=seconds)


@pytest.mark.parametrize("status", [503, 429])
@pytest.mark.parametrize(
    ("settings", "reason", "retry_after"),
    [({"max_queue_rows": 1}, "queue_full", {"2", "3"}), ({"slo_ms": 50}, "predicted_late", {"6", "7"})],
    ids=["queue_full", "predicted_late"],
)
async def test_retry_after_is_what_the_batches_ahead_will_take(engine, registry, settings, reason, retry_after, status):
    app = app_of(engine, registry, max_batch_size=1, overload_status=status, **settings)
    patient = {"X-Request-Timeout-Ms": "60000"}
    async with client_of(app) as client:
        learn(app, seconds=3.0)
        engine.shut()
        running = asyncio.create_task(client.post("/predict", json=ROW, headers=patient))
        await begun(engine)
        waiting = asyncio.create_task(client.post("/predict", json=ROW, headers=patient))
        while not app.state.redserve.repository.get("puppet").queued_rows:  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0)

        answer = await client.post("/predict", json=ROW)
        engine.open()
        assert [(await task).status_code for task in (running, waiting)] == [200, 200]

    assert (answer.status_code, answer.json()["error"]["reason"]) == (status, reason)
    assert answer.headers["retry-after"] in retry_after


async def test_a_request_without_a_header_expires_at_the_slo(engine, registry):
    async with client_of(app_of(engine, registry, slo_ms=50, request_timeout_ms=60_000)) as client:
        engine.shut()
        running = asyncio.create_task(client.post("/predict", json=ROW, headers={"X-Request-Timeout-Ms": "60000"}))
        await begun(engine)

        answer = await client.post("/predict", json=ROW)
        engine.open()
        assert (await running).status_code == 200

    assert (answer.status_code, answer.json()["error"]["reason"]) == (504, "deadline_expired")


async def test_what_is_not_overload_keeps_its_503_where_overload_is_a_429(registry):
    app = create_app(Settings.load({"overload_status": 429}), engines={"puppet": PuppetEngine}, registry=registry)
    async with client_of(app, loaded=False) as client:
        answer = await client.post("/predict", json=ROW)

    assert (answer.status_code, answer.json()["error"]["reason"]) == (503, "model_not_ready")
    assert answer.headers["retry-after"] == "1"


def test_the_slo_is_an_exact_bound_of_the_latency_histogram(engine, registry):
    app_of(engine, registry, slo_ms=123.0)

    REDMetrics(registry, buckets=latency_buckets(0.123))  # refused, were they others
