"""What a real Prometheus says about real traffic is true: counts to the last request, quantiles to a bucket's width.

    client process ──> uvicorn ──> Stopwatch ──> Starlette with REDMiddleware ──> handlers that take injected times
          │                            │                    │
        counts                    exact spans      /metrics ──> Prometheus ──> PromQL

The stopwatch stands outside of the application and knows nothing of the middleware.
"""

import asyncio
import math
import random
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from http_load import Counts, Request, drive
from live_app import LiveApp
from prometheus_client import CollectorRegistry
from prometheus_server import PrometheusServer
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HTTPRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from redserve import QueueFull, REDMiddleware, latency_buckets, set_error, set_model

pytestmark = pytest.mark.timeout(300)  # the first of these tests also fetches the tools and sends all the traffic

JOB = "truth"
SHAPES = ("narrow", "bimodal", "heavy")
LEFT_PATH = "/left"
NOT_SERVED = (LEFT_PATH, "/metrics")  # a stopwatch cannot see that nobody waits for an answer, nor who scrapes
REQUESTS_A_SHAPE = 6500
RANKINGS = 1500
QUANTILES = (0.5, 0.95, 0.99)
OUTCOME_AND_REASON = {  # of each kind of request that is not served
    "malformed": ("client_error", "bad_request"),
    "missing": ("client_error", "not_found"),
    "refused": ("rejected", "queue_full"),
    "limited": ("rejected", "rate_limited"),
    "broken": ("error", "unhandled_exception"),
    "left": ("cancelled", "client_disconnected"),
}


@dataclass(frozen=True)
class Measured:
    """One run of all the traffic.

    Attributes:
        counts: What the client counted.
        spans_s: The exact server-side times of what was served, sorted, by path.
        prometheus: Has scraped all of it.
    """

    counts: Counts
    spans_s: dict[str, list[float]]
    prometheus: PrometheusServer

    def quantile_s(self, quantile: float, selector: str, *, function: str = "") -> float:
        """What Prometheus says; `function` such as `rate(%s[5m])` is put around the buckets."""
        buckets = f'inference_request_latency_seconds_bucket{{job="{JOB}", {selector}}}'
        buckets = function % buckets if function else buckets
        said_s = self.prometheus.value(f"histogram_quantile({quantile}, sum by (le) ({buckets}))")
        assert said_s is not None
        return said_s


class Stopwatch:
    """Times each response of `app` from its request to the last piece of its body."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.spans_s: defaultdict[str, list[float]] = defaultdict(list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        started_s = time.perf_counter()
        status = 0

        async def timed_send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body") and status == 200:
                self.spans_s[scope["path"]].append(time.perf_counter() - started_s)
            await send(message)

        await self._app(scope, receive, timed_send)


async def work(request: HTTPRequest) -> PlainTextResponse:
    """Takes as long as the request says; refuses, or fails, where it says so."""
    model = request.path_params.get("model")
    if model is not None:
        set_model(request, model)
    match request.query_params.get("s", ""):
        case "refused":
            set_error(request, QueueFull(waiting=8, limit=8))
            return PlainTextResponse("full", status_code=503)
        case "limited":
            raise HTTPException(429)
        case "broken":
            raise RuntimeError("as the request says")
        case "":
            raise HTTPException(400)
        case seconds:
            await asyncio.sleep(float(seconds))
            return PlainTextResponse("done")


@pytest.fixture(scope="module")
def measured(prometheus: PrometheusServer) -> Iterator[Measured]:
    """All the traffic, sent once and scraped to its end."""
    paths = [*(f"/{shape}" for shape in SHAPES), "/rank/{model}", LEFT_PATH]
    app = Starlette(routes=[Route(path, work) for path in paths])
    app.add_middleware(REDMiddleware, registry=CollectorRegistry())
    stopwatch = Stopwatch(app)
    with LiveApp(stopwatch) as live:
        prometheus.add_target(JOB, live.port)
        # One of each first: rate() does not see the increase that makes a series.
        counts = drive(live.port, [(shape, f"/{shape}?s=0.008") for shape in SHAPES], connections=1)
        prometheus.wait_for_scrape(JOB)
        counts += drive(live.port, mixed_requests(), connections=32)
        counts += drive(live.port, ranking_requests("calm", refusals_for_each=0), connections=8)
        counts += drive(live.port, ranking_requests("loaded", refusals_for_each=2), connections=24)
        prometheus.wait_for_scrape(JOB)
        spans_s = {path: sorted(spans) for path, spans in stopwatch.spans_s.items() if path not in NOT_SERVED}
        yield Measured(counts=counts, spans_s=spans_s, prometheus=prometheus)
        prometheus.remove_target(JOB)


def mixed_requests() -> list[Request]:
    """The three shapes, and one request in twelve that is not served, in random order."""
    chance = random.Random(20_000)
    services_s = {
        "narrow": lambda: chance.gauss(0.008, 0.00016),
        "bimodal": lambda: (0.003 if chance.random() < 0.9 else 0.060) * chance.uniform(0.95, 1.05),
        "heavy": lambda: min(0.8, 0.002 * chance.paretovariate(1.8)),
    }
    requests = [
        (shape, f"/{shape}?s={service_s():.6f}")
        for shape, service_s in services_s.items()
        for _ in range(REQUESTS_A_SHAPE)
    ]
    for shape in SHAPES:
        requests += [("malformed", f"/{shape}")] * 100
        requests += [("refused", f"/{shape}?s=refused")] * 200
        requests += [("limited", f"/{shape}?s=limited")] * 100
        requests += [("broken", f"/{shape}?s=broken")] * 50
    requests += [("missing", f"/no-such-path/{number}") for number in range(100)]
    requests += [("left", f"{LEFT_PATH}?s=0.3")] * 30
    chance.shuffle(requests)
    return requests


def ranking_requests(model: str, *, refusals_for_each: int) -> list[Request]:
    """One in 75 slow, so that the p99 is a slow one; and fast refusals beside them."""
    served = [(model, f"/rank/{model}?s={0.4 if number % 75 == 0 else 0.004}") for number in range(RANKINGS)]
    requests = served + [("refused", f"/rank/{model}?s=refused")] * (refusals_for_each * len(served))
    random.Random(3).shuffle(requests)
    return requests


def exact_quantile_s(quantile: float, spans_s: list[float]) -> float:
    return spans_s[math.ceil(quantile * len(spans_s)) - 1]


def stated_error(value_s: float) -> float:
    """The growth of the bucket that holds the value, less one: how wrong a quantile may be at worst."""
    bounds = latency_buckets()
    upper = bisect_left(bounds, value_s)
    assert 0 < upper < len(bounds), f"{value_s} s is outside of the histogram"
    return bounds[upper] / bounds[upper - 1] - 1


@pytest.mark.parametrize("function", ["", "rate(%s[5m])"], ids=["whole life", "rate"])
@pytest.mark.parametrize("quantile", QUANTILES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_quantile_is_within_the_stated_error_of_the_exact_one(
    measured: Measured, shape: str, quantile: float, function: str
) -> None:
    exact_s = exact_quantile_s(quantile, measured.spans_s[f"/{shape}"])
    said_s = measured.quantile_s(quantile, f'route="/{shape}", outcome="ok"', function=function)

    assert said_s == pytest.approx(exact_s, rel=stated_error(exact_s))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_sum_of_all_latencies_is_the_sum_of_the_exact_ones(measured: Measured, shape: str) -> None:
    said_s = measured.prometheus.value(
        f'inference_request_latency_seconds_sum{{job="{JOB}", route="/{shape}", outcome="ok"}}'
    )

    assert said_s == pytest.approx(sum(measured.spans_s[f"/{shape}"]), rel=0.01)


def test_every_request_is_counted_as_the_client_saw_it(measured: Measured) -> None:
    expected: Counter[tuple[str, str]] = Counter()
    for (kind, status), count in measured.counts.items():
        outcome, _ = OUTCOME_AND_REASON.get(kind, ("ok", ""))
        expected[str(status), outcome] += count
    assert expected.total() >= 20_000

    samples = measured.prometheus.query(f'sum by (code, outcome) (inference_requests_total{{job="{JOB}"}})')

    assert {(labels["code"], labels["outcome"]): value for labels, value in samples} == expected


def test_every_latency_of_what_was_served_is_in_the_histogram(measured: Measured) -> None:
    samples = measured.prometheus.query(
        f'sum by (route, model) (inference_request_latency_seconds_count{{job="{JOB}", outcome="ok"}})'
    )

    served = {labels["route"].replace("{model}", labels.get("model", "")): value for labels, value in samples}
    assert served == {path: len(spans_s) for path, spans_s in measured.spans_s.items()}


def test_everything_that_was_not_served_is_counted_by_its_reason(measured: Measured) -> None:
    expected: Counter[str] = Counter()
    for (kind, _), count in measured.counts.items():
        if kind in OUTCOME_AND_REASON:
            expected[OUTCOME_AND_REASON[kind][1]] += count

    samples = measured.prometheus.query(f'sum by (reason) (inference_errors_total{{job="{JOB}"}})')

    assert {labels["reason"]: value for labels, value in samples} == expected


def test_what_arrived_has_ended_and_nothing_else_is_counted(measured: Measured) -> None:
    received = measured.prometheus.value(f'sum(inference_requests_received_total{{job="{JOB}"}})')
    in_flight = measured.prometheus.value(f'inference_requests_in_flight{{job="{JOB}"}}')

    assert received == measured.counts.total()
    assert in_flight == 0


def test_in_every_scrape_received_is_the_sum_of_ended_and_in_flight(measured: Measured) -> None:
    apart = measured.prometheus.query(
        f'max_over_time((abs(sum(inference_requests_received_total{{job="{JOB}"}}) '
        f'- sum(inference_requests_total{{job="{JOB}"}}) - sum(inference_requests_in_flight{{job="{JOB}"}})))[5m:1s])'
    )

    assert [value for _, value in apart] == [0]


def test_fast_refusals_at_three_times_the_load_do_not_improve_the_p99(measured: Measured) -> None:
    calm_s = measured.quantile_s(0.99, 'model="calm", outcome="ok"')
    loaded_s = measured.quantile_s(0.99, 'model="loaded", outcome="ok"')
    with_refusals_s = measured.quantile_s(0.99, 'model="loaded"')

    assert loaded_s >= calm_s * (1 - stated_error(calm_s))
    assert loaded_s == pytest.approx(
        exact_quantile_s(0.99, measured.spans_s["/rank/loaded"]), rel=stated_error(loaded_s)
    )
    assert with_refusals_s < calm_s / 2  # what a histogram that cannot tell them apart would have said
