import math

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from redserve.bench.metrics_page import Buckets, Scrape, read_scrape
from redserve.metrics import REDMetrics


def page_of(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()


def test_it_reads_what_our_instruments_write(registry):
    red = REDMetrics(registry)
    before = read_scrape(page_of(registry))
    for code, outcome, reason in ((200, "ok", ""), (200, "ok", ""), (503, "rejected", "queue_full")):
        red.received("POST")
        red.finished(route="/p", method="POST", model="m", code=code, outcome=outcome, reason=reason, duration_s=0.030)
    red.received("POST")
    after = read_scrape(page_of(registry))

    assert before is not None
    assert after is not None
    since = after - before
    assert since.ended == {"200": 2, "503": 1}
    assert since.in_flight == 1
    assert since.latency.count == 2
    assert since.latency.mean == pytest.approx(0.030)
    assert since.latency.quantile(0.99) == pytest.approx(0.030, rel=0.17)


def test_a_page_without_our_metrics_is_none():
    assert read_scrape("# TYPE up gauge\nup 1\n") is None


def test_a_page_that_is_no_prometheus_text_is_an_error():
    with pytest.raises(ValueError, match="invalid metric name"):
        read_scrape("<html>\n<b {>\n")


def test_quantiles_are_those_of_prometheus():
    buckets = Buckets((0.1, 0.2, 0.4, math.inf), (10, 0, 10, 0), 5.0)

    assert buckets.quantile(0.25) == pytest.approx(0.05)  # halfway through the first bucket, which begins at 0
    assert buckets.quantile(0.75) == pytest.approx(0.3)
    assert buckets.quantile(1.0) == pytest.approx(0.4)


def test_a_quantile_beyond_the_last_bound_is_that_bound_and_of_nothing_is_zero():
    assert Buckets((0.1, math.inf), (1, 99), 50.0).quantile(0.9) == 0.1
    assert Buckets().quantile(0.5) == 0.0
    assert Buckets().mean == 0.0


def test_a_series_that_came_up_meanwhile_counts_from_nothing():
    since = Scrape({"200": 5}, 0, Buckets((1.0, math.inf), (5, 0), 2.0)) - Scrape()

    assert since.ended == {"200": 5}
    assert since.latency.count == 5
