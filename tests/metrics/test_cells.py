import math
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redserve.metrics.cells import Counter, Gauge, Histogram, number_text


def samples(family):
    metric = family.metric(family.copy())
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in metric.samples}


def test_a_series_is_made_at_zero_and_found_again():
    counter = Counter("c", "Counts.", ("a",))

    assert counter.series("x") is counter.series("x")
    assert samples(counter) == {("c_total", (("a", "x"),)): 0}


def test_another_number_of_label_values_is_refused():
    with pytest.raises(ValueError, match="labels"):
        Counter("c", "Counts.", ("a",)).series("x", "y")


def test_a_removed_series_is_gone_and_begins_anew():
    counter = Counter("c", "Counts.", ("a",))
    counter.series("x").cell[0] += 3
    counter.remove("x")

    assert samples(counter) == {}
    assert counter.series("x").cell == [0]
    counter.remove("never seen")


def test_a_copy_does_not_change_with_its_series():
    histogram = Histogram("h", "Sizes.", bounds=[1, 2])
    series = histogram.series()
    copied = histogram.copy()
    histogram.observe(series, 1.5)

    assert copied[0][1] == [0, 0, 0, 0.0]
    assert histogram.copy()[0][1] == [0, 1, 0, 1.5]


def test_counters_have_no_creation_time():
    counter = Counter("c", "Counts.")
    counter.series()

    assert [sample.name for sample in counter.metric(counter.copy()).samples] == ["c_total"]


def test_a_lone_surrogate_in_a_label_value_does_not_reach_the_exposition():
    counter = Counter("c", "Counts.", ("a",))
    counter.series("\ud800").cell[0] += 1
    counter.series("\ud800").cell[0] += 1

    assert samples(counter) == {("c_total", (("a", r"\ud800"),)): 2}


def test_a_watched_gauge_is_read_at_each_copy():
    depth = [3]
    gauge = Gauge("g", "Depth.", ("a",))
    gauge.watch(lambda: depth[0], "x")
    assert gauge.copy()[0][1] == [3]

    depth[0] = 5
    assert gauge.copy()[0][1] == [5]


def test_watches_of_one_series_are_summed_until_each_ends():
    gauge = Gauge("g", "Depth.", ("a",))
    stop_first = gauge.watch(lambda: 3, "x")
    stop_second = gauge.watch(lambda: 4, "x")
    assert gauge.copy()[0][1] == [7]

    stop_first()
    stop_first()
    assert gauge.copy()[0][1] == [4]
    stop_second()
    assert gauge.copy() == []


def test_the_same_function_watched_twice_counts_twice_and_ends_once_each():
    def read():
        return 2

    gauge = Gauge("g", "Depth.")
    stop_first, stop_second = gauge.watch(read), gauge.watch(read)
    stop_first()
    stop_first()

    assert gauge.copy()[0][1] == [2]
    stop_second()
    assert gauge.copy() == []


def test_an_old_watch_cannot_end_a_newer_one_of_the_same_series():
    gauge = Gauge("g", "Depth.")
    stop = gauge.watch(lambda: 1)
    stop()
    gauge.watch(lambda: 2)
    stop()

    assert gauge.copy()[0][1] == [2]


def test_a_gauge_that_cannot_be_read_is_left_out_and_logged(caplog):
    gauge = Gauge("g", "Depth.", ("a",))
    gauge.watch(lambda: 1 // 0, "broken")
    gauge.watch(lambda: 1, "whole")

    assert samples(gauge) == {("g", (("a", "whole"),)): 1}
    assert "could not be read" in caplog.text


def test_an_observation_on_a_bound_is_within_it():
    histogram = Histogram("h", "Sizes.", bounds=[1, 2])
    series = histogram.series()
    for value in (0.5, 1, 1.5, 2, 3):
        histogram.observe(series, value)

    assert samples(histogram) == {
        ("h_bucket", (("le", "1.0"),)): 2,
        ("h_bucket", (("le", "2.0"),)): 4,
        ("h_bucket", (("le", "+Inf"),)): 5,
        ("h_count", ()): 5,
        ("h_sum", ()): 8,
    }


@settings(deadline=None)
@given(
    bounds=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30, unique=True).map(sorted),
    values=st.lists(st.floats(-1e7, 1e7), max_size=50),
)
def test_buckets_count_and_sum_are_those_of_a_naive_count(bounds, values):
    histogram = Histogram("h", "Sizes.", bounds=bounds)
    series = histogram.series()
    for value in values:
        histogram.observe(series, value)

    exposed = samples(histogram)
    for bound in [*bounds, math.inf]:
        naive = sum(value <= bound for value in values)
        assert exposed["h_bucket", (("le", number_text(float(bound))),)] == naive
    assert exposed["h_count", ()] == len(values)
    assert exposed["h_sum", ()] == [*accumulate(values, initial=0.0)][-1]  # `sum` rounds otherwise since Python 3.12


def test_an_exemplar_is_kept_where_it_was_given():
    histogram = Histogram("h", "Sizes.", bounds=[1, 2])
    series = histogram.series()
    position = histogram.observe(series, 1.5)
    series.set_exemplar(position, {"trace_id": "abc"}, 1.5)

    exemplars = {s.labels.get("le"): s.exemplar for s in histogram.metric(histogram.copy()).samples if s.exemplar}
    assert list(exemplars) == ["2.0"]
    assert (exemplars["2.0"].labels, exemplars["2.0"].value) == ({"trace_id": "abc"}, 1.5)


@pytest.mark.parametrize("labels", [{"trace-id": "abc"}, {"": "abc"}, {"trace_id": "x" * 121}])
def test_an_exemplar_that_openmetrics_does_not_allow_is_refused(labels):
    with pytest.raises(ValueError, match="exemplar"):
        Counter("c", "Counts.").series().set_exemplar(0, labels, 1)


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (0.5, "0.5"), (1e6, "1e+06"), (math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN")],
)
def test_numbers_are_written_as_prometheus_reads_them(value, text):
    assert number_text(value) == text
