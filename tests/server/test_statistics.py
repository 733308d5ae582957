import pytest

from redserve.batching import BatchReport
from redserve.server.statistics import Statistics


class Heard:
    """An observer that keeps what it hears."""

    def __init__(self):
        self.reports = []
        self.is_closed = False

    def watch(self, name, version, depth, limit):
        self.watched = (name, version, depth(), limit)
        return self

    def record(self, report):
        self.reports.append(report)

    def close(self):
        self.is_closed = True


def report(rows, compute_s, *, has_failed=False):
    return BatchReport(rows=rows, why="idle", waits_s=[0.0], compute_s=compute_s, has_failed=has_failed)


def test_a_model_that_has_done_nothing_has_zeros():
    described = Statistics(Heard()).of("digits", "1").describe("digits", "1")

    assert (described["name"], described["version"]) == ("digits", "1")
    assert described["inference_count"] == described["execution_count"] == described["last_inference"] == 0
    assert described["batch_stats"] == []
    assert all(duration == {"count": 0, "ns": 0} for duration in described["inference_stats"].values())


def test_requests_count_with_their_times_in_nanoseconds():
    model = Statistics(Heard()).of("digits", "1")
    model.succeeded(0.5, queue_s=0.25, compute_s=0.125)
    model.succeeded(1.0, queue_s=0.5, compute_s=0.25)
    model.failed(0.0625)

    stats = model.describe("digits", "1")["inference_stats"]

    assert stats["success"] == {"count": 2, "ns": 1_500_000_000}
    assert stats["queue"] == {"count": 2, "ns": 750_000_000}
    assert stats["compute_infer"] == {"count": 2, "ns": 375_000_000}
    assert stats["compute_input"] == stats["compute_output"] == {"count": 2, "ns": 0}
    assert stats["fail"] == {"count": 1, "ns": 62_500_000}


def test_runs_count_with_their_rows_and_those_that_gave_nothing_do_not():
    statistics = Statistics(Heard())
    recorder = statistics.watch("digits", "1", lambda: 0, 10)
    for rows, compute_s in ((4, 0.5), (1, 0.25), (4, 0.5)):
        recorder.record(report(rows, compute_s))
    recorder.record(report(2, 1.0, has_failed=True))

    described = statistics.of("digits", "1").describe("digits", "1")

    assert (described["inference_count"], described["execution_count"]) == (9, 3)
    assert described["last_inference"] > 1_600_000_000_000
    assert [(entry["batch_size"], entry["compute_infer"]) for entry in described["batch_stats"]] == [
        (1, {"count": 1, "ns": 250_000_000}),
        (4, {"count": 2, "ns": 1_000_000_000}),
    ]


def test_versions_count_apart():
    statistics = Statistics(Heard())
    statistics.watch("digits", "2", lambda: 0, 10).record(report(1, 0.5))

    assert statistics.of("digits", "1").describe("digits", "1")["execution_count"] == 0
    assert statistics.of("digits", "2").describe("digits", "2")["execution_count"] == 1


@pytest.mark.parametrize("has_failed", [False, True])
def test_the_observer_behind_hears_all_the_same(has_failed):
    heard = Heard()
    recorder = Statistics(heard).watch("digits", "1", lambda: 3, 10)
    told = report(1, 0.5, has_failed=has_failed)
    recorder.record(told)
    recorder.close()

    assert heard.watched == ("digits", "1", 3, 10)
    assert heard.reports == [told]
    assert heard.is_closed
