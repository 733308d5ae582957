import pickle

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Exemplar

from redserve.metrics import BatchMetrics, ModelMetrics, REDMetrics
from redserve.metrics.families import family_sets
from redserve.metrics.merging import copies_of, departed, merged, snapshot
from redserve.metrics.rendering import render


class Process:
    """The instruments of one process."""

    def __init__(self):
        self.registry = CollectorRegistry()
        self.red = REDMetrics(self.registry, buckets=(0.1, 1.0))
        self.batches = BatchMetrics(self.registry)
        self.models = ModelMetrics(self.registry)

    def answer(self, *durations_s, code=200):
        outcome = "ok" if code == 200 else "error"
        for duration_s in durations_s:
            self.red.received("POST")
            self.red.finished("/predict", "POST", "m", code, outcome, "model_error", duration_s)

    def snapshot(self):
        return pickle.loads(pickle.dumps(snapshot(family_sets(self.registry))))


def numbers(total, name):
    return {values: cell for values, (cell, _) in total[name][1].items()}


def text(total, registry):
    copies = copies_of(family_sets(registry), total, {})
    return b"".join(render(copies.values(), is_openmetrics=False)).decode()


def test_counters_and_histograms_are_summed_series_by_series():
    one, other = Process(), Process()
    one.answer(0.05, 0.5)
    other.answer(0.5, 5.0)
    other.answer(0.05, code=500)

    total = merged([one.snapshot(), other.snapshot()])

    assert numbers(total, "inference_requests") == {
        ("/predict", "POST", "m", "200", "ok"): [4],
        ("/predict", "POST", "m", "500", "error"): [1],
    }
    latency = numbers(total, "inference_request_latency_seconds")
    assert latency["/predict", "POST", "m", "ok"] == [1, 2, 1, pytest.approx(6.05)]


def test_what_is_in_flight_and_what_waits_is_summed_with_what_may_wait():
    one, other = Process(), Process()
    one.red.received("POST")
    other.red.received("GET")
    one.batches.watch("m", "1", lambda: 3, 100)
    other.batches.watch("m", "1", lambda: 4, 100)

    total = merged([one.snapshot(), other.snapshot()])

    assert numbers(total, "inference_requests_in_flight") == {(): [2]}
    assert numbers(total, "inference_batch_queue_depth") == {("m", "1"): [7]}
    assert numbers(total, "inference_batch_queue_limit") == {("m", "1"): [200]}


def test_a_model_is_described_once_and_ready_where_all_say_so():
    one, other = Process(), Process()
    for process in (one, other):
        process.models.info("m", "1", "CPU", batching="dynamic", max_batch_size="8")
    one.models.ready("m", "1", True)
    other.models.ready("m", "1", False)

    total = merged([one.snapshot(), other.snapshot()])

    assert list(numbers(total, "inference_model_info").values()) == [[1]]
    assert numbers(total, "inference_model_ready") == {("m", "1"): [0]}


def test_merging_changes_none_of_the_parts():
    one, other = Process(), Process()
    one.answer(0.05)
    other.answer(0.05)
    parts = [one.snapshot(), other.snapshot()]
    before = pickle.dumps(parts)

    merged(parts)

    assert pickle.dumps(parts) == before


def test_the_newest_exemplar_of_a_bucket_stays():
    old, new = Exemplar({"trace_id": "a"}, 0.5, 100.0), Exemplar({"trace_id": "b"}, 0.6, 200.0)
    parts = [{"x": ("count", {(): ([1, 0.5], {0: each})})} for each in (new, old)]

    assert merged(parts)["x"][1][()] == ([2, 1.0], {0: new})


def test_of_a_process_that_is_gone_the_counts_stay_and_the_gauges_go():
    process = Process()
    process.answer(0.05)
    process.batches.watch("m", "1", lambda: 3, 100)

    stays = departed(process.snapshot())

    assert numbers(stays, "inference_requests") == {("/predict", "POST", "m", "200", "ok"): [1]}
    assert numbers(stays, "inference_request_latency_seconds")
    assert not stays.keys() & {"inference_requests_in_flight", "inference_batch_queue_depth", "inference_model_ready"}


def test_what_a_process_had_in_flight_when_it_died_ends_as_an_error():
    dead, alive = Process(), Process()
    dead.answer(0.05)
    for _ in range(3):
        dead.red.received("POST")
    alive.red.received("POST")

    total = merged([departed(dead.snapshot()), alive.snapshot()])

    assert numbers(total, "inference_requests")["_other", "_other", "", "500", "error"] == [3]
    assert numbers(total, "inference_errors") == {("_other", "", "worker_died"): [3]}
    received, ended, in_flight = (
        sum(cell[0] for cell in numbers(total, f"inference_requests{part}").values())
        for part in ("_received", "", "_in_flight")
    )
    assert (received, ended, in_flight) == (5, 4, 1)


def test_a_sum_is_rendered_as_the_numbers_of_one_process_are():
    one, other, both = Process(), Process(), Process()
    for process in (one, both):
        process.answer(0.25)
    for process in (other, both):
        process.answer(0.5, code=500)

    assert text(merged([one.snapshot(), other.snapshot()]), one.registry) == text(both.snapshot(), both.registry)
