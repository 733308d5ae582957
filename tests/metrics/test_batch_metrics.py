from dataclasses import dataclass, field

import pytest

from redserve.metrics.batch import BatchMetrics

DIGITS = {"model": "digits", "version": "1"}


@dataclass
class Report:
    rows: int = 3
    why: str = "idle"
    waits_s: list[float] = field(default_factory=lambda: [0.001, 0.002])
    compute_s: float = 0.005
    padded_rows: int = 0


def test_queue_depth_and_limit_are_read_when_scraped(registry):
    depth = [4]
    BatchMetrics(registry).watch("digits", "1", lambda: depth[0], 1024)
    depth[0] = 7

    assert registry.get_sample_value("inference_batch_queue_depth", DIGITS) == 7
    assert registry.get_sample_value("inference_batch_queue_limit", DIGITS) == 1024


def test_a_batch_is_counted_once_and_its_waits_each(registry):
    BatchMetrics(registry).watch("digits", "1", lambda: 0, 1024).record(Report())

    assert registry.get_sample_value("inference_queue_wait_seconds_count", DIGITS) == 2
    assert registry.get_sample_value("inference_queue_wait_seconds_sum", DIGITS) == pytest.approx(0.003)
    assert registry.get_sample_value("inference_batch_size_count", DIGITS) == 1
    assert registry.get_sample_value("inference_batch_size_sum", DIGITS) == 3
    assert registry.get_sample_value("inference_compute_seconds_sum", DIGITS) == 0.005
    assert registry.get_sample_value("inference_batches_total", {**DIGITS, "why": "idle"}) == 1


def test_rows_that_fill_a_batch_up_are_counted_apart(registry):
    recorder = BatchMetrics(registry).watch("digits", "1", lambda: 0, 1024)
    recorder.record(Report(rows=3, padded_rows=1))
    recorder.record(Report(rows=4))
    recorder.record(Report(rows=5, padded_rows=3))

    assert registry.get_sample_value("inference_padded_rows_total", DIGITS) == 4
    assert registry.get_sample_value("inference_batch_size_sum", DIGITS) == 12


def test_batch_sizes_are_bounded_by_powers_of_two_up_to_1024(registry):
    BatchMetrics(registry).watch("digits", "1", lambda: 0, 1024).record(Report(rows=32))

    assert registry.get_sample_value("inference_batch_size_bucket", {**DIGITS, "le": "16.0"}) == 0
    assert registry.get_sample_value("inference_batch_size_bucket", {**DIGITS, "le": "32.0"}) == 1
    assert registry.get_sample_value("inference_batch_size_bucket", {**DIGITS, "le": "1024.0"}) == 1
    assert registry.get_sample_value("inference_batch_size_bucket", {**DIGITS, "le": "2048.0"}) is None


def test_a_watched_queue_has_its_histograms_at_zero_before_the_first_batch(registry):
    BatchMetrics(registry).watch("digits", "1", lambda: 0, 1024)

    assert registry.get_sample_value("inference_queue_wait_seconds_count", DIGITS) == 0
    assert registry.get_sample_value("inference_compute_seconds_count", DIGITS) == 0


def test_a_closed_queue_has_no_depth_but_keeps_its_counts(registry):
    recorder = BatchMetrics(registry).watch("digits", "1", lambda: 0, 1024)
    recorder.record(Report())
    recorder.close()
    recorder.close()

    assert registry.get_sample_value("inference_batch_queue_depth", DIGITS) is None
    assert registry.get_sample_value("inference_batch_queue_limit", DIGITS) is None
    assert registry.get_sample_value("inference_batches_total", {**DIGITS, "why": "idle"}) == 1


def test_two_queues_of_the_same_name_and_version_are_summed(registry):
    metrics = BatchMetrics(registry)
    first = metrics.watch("digits", "1", lambda: 2, 100)
    second = BatchMetrics(registry).watch("digits", "1", lambda: 3, 10)
    first.record(Report())
    second.record(Report())

    assert registry.get_sample_value("inference_batch_queue_depth", DIGITS) == 5
    assert registry.get_sample_value("inference_batch_queue_limit", DIGITS) == 110
    assert registry.get_sample_value("inference_batches_total", {**DIGITS, "why": "idle"}) == 2

    first.close()
    assert registry.get_sample_value("inference_batch_queue_depth", DIGITS) == 3
    assert registry.get_sample_value("inference_batch_queue_limit", DIGITS) == 10


def test_queues_beyond_the_hundredth_are_summed_as_other(registry):
    metrics = BatchMetrics(registry)
    for number in range(103):
        metrics.watch(f"model{number}", "", lambda: 1, 10)

    labels = {"model": "_other", "version": ""}
    assert registry.get_sample_value("inference_batch_queue_depth", labels) == 3


def test_other_buckets_for_the_same_registry_are_refused(registry):
    BatchMetrics(registry)

    with pytest.raises(ValueError, match="other buckets"):
        BatchMetrics(registry, buckets=[1])


def test_what_is_removed_is_gone_and_makes_room_for_others(registry):
    metrics = BatchMetrics(registry)
    for version in map(str, range(1, 251)):
        recorder = metrics.watch("digits", version, lambda: 0, 1024)
        recorder.record(Report())
        recorder.close()
        metrics.remove("digits", version)
        metrics.remove("digits", version)
    metrics.watch("digits", "251", lambda: 0, 1024).record(Report())

    names = {
        (sample.name, *sorted(sample.labels.items())) for family in registry.collect() for sample in family.samples
    }
    versions = {value for _, *labels in names for key, value in labels if key == "version"}
    assert versions == {"251"}
    assert registry.get_sample_value("inference_batches_total", {**DIGITS, "version": "251", "why": "idle"}) == 1


def test_a_version_that_another_model_has_stays(registry):
    metrics = BatchMetrics(registry)
    for name in ("digits", "cats"):
        metrics.watch(name, "1", lambda: 0, 1024).record(Report())
    metrics.remove("cats", "1")

    assert registry.get_sample_value("inference_batch_size_count", DIGITS) == 1
    assert registry.get_sample_value("inference_batch_size_count", {"model": "cats", "version": "1"}) is None
