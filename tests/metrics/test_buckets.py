import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redserve.metrics.buckets import checked_bounds, latency_buckets


def growths(bounds):
    return [high / low for low, high in pairwise(bounds)]


def test_the_default_has_66_finite_bounds_from_half_a_millisecond_to_ten_seconds():
    bounds = latency_buckets()

    assert len(bounds) == 66
    assert (bounds[0], bounds[-1]) == (0.0005, 10.0)
    assert {0.001, 0.01, 0.1, 1.0} <= set(bounds)


def test_the_default_bounds_have_three_digits_and_grow_by_a_fifteenth_of_a_decade():
    bounds = latency_buckets()

    assert all(float(f"{bound:.3g}") == bound for bound in bounds)
    assert all(growth == pytest.approx(10 ** (1 / 15), rel=0.01) for growth in growths(bounds)[1:])


def test_an_slo_is_a_bound_exactly_as_given():
    assert 0.123456 in latency_buckets(0.123456)


def test_every_slo_of_a_list_is_a_bound():
    assert {0.05, 0.1, 2.0} <= set(latency_buckets([0.1, 0.05, 2]))


def test_one_slo_costs_fewer_series_than_the_default():
    assert len(latency_buckets(0.1)) == 49


def test_bounds_grow_by_a_tenth_around_the_slo_and_by_half_elsewhere():
    bounds = latency_buckets(0.1)

    around = [bound for bound in bounds if 0.025 <= bound <= 0.4]
    assert max(growths(around)) < 1.105
    assert max(growths(bounds)) < 1.51
    assert (around[0], around[-1]) == (0.025, 0.4)


def test_the_range_may_be_moved_for_slow_work():
    bounds = latency_buckets(lo=0.1, hi=600)

    assert (bounds[0], bounds[-1]) == (0.1, 600)


@settings(deadline=None)
@given(
    slos=st.lists(st.floats(0.0005, 10.0), min_size=1, max_size=4),
)
def test_bounds_around_any_slos_are_whole_and_nowhere_closer_than_the_slos_ask(slos):
    bounds = latency_buckets(slos)

    assert set(slos) <= set(bounds)
    assert checked_bounds(bounds) == bounds
    assert max(growths(bounds)) < 1.57
    for low, high in pairwise(bounds):
        assert high / low > 1.03 or low in slos or high in slos
    for slo in slos:
        near = [bound for bound in bounds if slo / 4 <= bound <= slo * 4]
        assert max(growths(near), default=1.0) < 1.12


@settings(deadline=None)
@given(
    lo=st.floats(1e-6, 1e3),
    span=st.floats(1.01, 1e6),
    per_decade=st.integers(1, 100),
)
def test_any_range_and_density_gives_rising_bounds_from_lo_to_hi(lo, span, per_decade):
    bounds = latency_buckets(lo=lo, hi=lo * span, per_decade=per_decade)

    assert checked_bounds(bounds) == bounds
    assert (bounds[0], bounds[-1]) == (lo, lo * span)
    assert max(growths(bounds)) < 10 ** (1.3 / per_decade) * 1.01


@pytest.mark.parametrize(
    "arguments",
    [
        {"lo": 0},
        {"lo": -1},
        {"lo": 1, "hi": 1},
        {"hi": math.inf},
        {"lo": math.nan},
        {"per_decade": 0},
        {"per_decade": 101},
        {"slo": []},
        {"slo": 0},
        {"slo": -0.1},
        {"slo": math.nan},
        {"slo": 11},
        {"slo": [0.1, 0.0001]},
    ],
)
def test_nonsense_is_a_value_error(arguments):
    with pytest.raises(ValueError, match=r"\d|latency"):
        latency_buckets(**arguments)


def test_a_last_infinite_bound_is_dropped():
    assert checked_bounds([1, 2, math.inf]) == (1.0, 2.0)


@pytest.mark.parametrize("bounds", [[], [math.inf], [2, 1], [1, 1], [0, 1], [1, math.inf, 2], [math.nan]])
def test_bounds_that_are_not_bounds_are_refused(bounds):
    with pytest.raises(ValueError, match="bound"):
        checked_bounds(bounds)
