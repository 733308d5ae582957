import itertools
import pickle
import random

import pytest

from redserve.bench.histogram import Histogram, round_us


def of_seconds(values: list[float]) -> Histogram:
    counts: dict[int, int] = {}
    for value in values:
        counts[round_us(value)] = counts.get(round_us(value), 0) + 1
    return Histogram.of(counts)


def test_percentiles_are_right_to_three_digits():
    draw = random.Random(1)
    values = sorted(draw.lognormvariate(-6, 1.5) for _ in range(50_000))
    histogram = of_seconds(values)

    for percent in (50.0, 95.0, 99.0, 99.9):
        exact = values[round(percent / 100 * len(values)) - 1]
        assert histogram.percentile_s(percent) == pytest.approx(exact, rel=2e-3, abs=1e-6)
    assert histogram.max_s() == pytest.approx(values[-1], rel=1e-3)
    assert histogram.mean_s() == pytest.approx(sum(values) / len(values), rel=1e-3)


def test_histograms_of_several_processes_merge_into_what_one_would_have_counted():
    draw = random.Random(2)
    parts = [[draw.expovariate(100) for _ in range(1_000)] for _ in range(3)]
    merged = Histogram()
    for part in parts:
        merged.add(pickle.loads(pickle.dumps(of_seconds(part))))

    assert merged.encode() == of_seconds([*itertools.chain(*parts)]).encode()


def test_a_histogram_comes_back_from_its_text():
    histogram = of_seconds([0.001, 0.002, 0.5])
    again = Histogram(histogram.encode())

    assert len(again) == 3
    assert again.percentiles_s() == histogram.percentiles_s()


def test_what_is_rounded_while_counting_falls_into_the_bucket_it_would_have_fallen_into():
    draw = random.Random(3)
    for value_us in (int(10 ** draw.uniform(0, 9)) for _ in range(100)):
        exact, rounded = Histogram.of({value_us: 1}), Histogram.of({round_us(value_us / 1e6 + 1e-9): 1})
        assert exact.percentile_s(50) == rounded.percentile_s(50)


def test_no_time_is_lost_because_it_is_too_short_or_too_long():
    assert len(Histogram.of({0: 2, 10**12: 3})) == 5


def test_an_empty_histogram_has_only_zeros():
    assert Histogram().percentiles_s() == [0.0] * 6
    assert (len(Histogram()), Histogram().mean_s(), Histogram().max_s()) == (0, 0.0, 0.0)


def test_it_counts_what_is_within_a_limit_the_limit_included():
    histogram = of_seconds([0.001, 0.002, 0.002, 0.050])

    assert histogram.count_within(0.002) == 3
    assert histogram.count_within(0.0019) == 1
    assert histogram.count_within(1) == 4
