from collections import Counter

import pytest

from redserve.bench.arrivals import Constant
from redserve.bench.histogram import Histogram
from redserve.bench.load import Load
from redserve.bench.tally import Tally
from redserve.bench.verdict import kept_rate, notes_on, within_slo_ratio

OPEN = Load(host="h", port=1, requests=[b"x"], arrivals=Constant(100), max_connections=77)
CLOSED = Load(host="h", port=1, requests=[b"x"])


def tally(*, latency_ms: float = 5, own_ms: float = 0, wait_ms: float = 0, unsent: int = 0, failed: int = 0) -> Tally:
    def hundred(ms: float) -> Histogram:
        return Histogram.of({round(1000 * ms): 100})

    return Tally(
        latency=hundred(latency_ms),
        own_delay=hundred(own_ms),
        connection_wait=hundred(wait_ms),
        unsent=unsent,
        failures=Counter({"503": failed}),
    )


def test_a_run_that_is_what_it_seems_needs_no_note():
    assert notes_on(tally(), OPEN) == []
    assert kept_rate(tally())


def test_a_backlog_of_the_sender_is_said():
    late = tally(latency_ms=9, own_ms=7)

    assert "the sender itself was late" in notes_on(late, OPEN)[0]
    assert "7.0 ms" in notes_on(late, OPEN)[0]
    assert not kept_rate(late)


def test_what_did_not_leave_is_said_first():
    notes = notes_on(tally(unsent=50, own_ms=20, latency_ms=21), OPEN)

    assert notes[0].startswith("COULD NOT KEEP THE RATE: 50 of 150")
    assert not kept_rate(tally(unsent=50))


def test_a_wait_for_connections_is_said_with_their_number():
    assert "at most 77 connections" in notes_on(tally(latency_ms=20, wait_ms=15), OPEN)[0]


def test_a_delay_that_is_small_beside_the_latency_or_the_slo_is_no_matter():
    assert notes_on(tally(latency_ms=100, own_ms=5), OPEN) == []
    assert kept_rate(tally(latency_ms=9, own_ms=4), limit_s=0.050)


def test_a_closed_loop_has_no_plan_to_be_late_for():
    assert notes_on(tally(own_ms=50, unsent=9), CLOSED) == []


def test_latencies_beside_failures_say_whose_they_are():
    assert "7 requests failed" in notes_on(tally(failed=7), CLOSED)[0]


def test_a_request_that_failed_or_never_left_keeps_no_slo():
    assert within_slo_ratio(tally(), 0.010) == 1.0
    assert within_slo_ratio(tally(failed=60, unsent=40), 0.010) == pytest.approx(0.5)
    assert within_slo_ratio(tally(), 0.004) == 0.0
    assert within_slo_ratio(Tally(), 0.010) == 0.0
