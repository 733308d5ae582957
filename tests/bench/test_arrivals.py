import itertools
import statistics

import pytest

from redserve.bench.arrivals import Arrivals, Burst, Constant, Poisson, Ramp, Replay, Share


def first(arrivals: Arrivals, count: int) -> list[float]:
    return list(itertools.islice(arrivals.times_s(), count))


def test_constant_arrivals_are_one_gap_apart_and_begin_at_once():
    assert first(Constant(4), 5) == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_constant_arrivals_do_not_add_up_an_error():
    assert next(itertools.islice(Constant(3).times_s(), 3_000_000, None)) == 1_000_000.0


def test_poisson_arrivals_have_the_mean_and_the_spread_of_exponential_gaps():
    times = first(Poisson(100, seed=1), 20_000)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]

    assert statistics.mean(gaps) == pytest.approx(0.01, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(0.01, rel=0.03)  # of an exponential distribution: its mean


def test_poisson_arrivals_are_the_same_each_time_they_are_asked_for():
    plan = Poisson(10, seed=7)

    assert first(plan, 50) == first(plan, 50) == first(Poisson(10, seed=7), 50)
    assert first(plan, 50) != first(Poisson(10, seed=8), 50)


def test_a_ramp_sends_the_area_under_its_line():
    times = list(Ramp(10, 30, seconds=10).times_s())

    assert len(times) == 200  # (10 + 30) / 2 * 10
    assert sum(time_s < 5 for time_s in times) == 75  # 10 * 5 + (20 - 10) / 2 * 5
    assert max(times) < 10


def test_a_ramp_may_fall_and_may_be_flat():
    falling = list(Ramp(30, 10, seconds=10).times_s())

    assert sum(time_s < 5 for time_s in falling) == 125
    assert list(Ramp(4, 4, seconds=1).times_s()) == [0.0, 0.25, 0.5, 0.75]


def test_a_burst_leaves_at_once_and_as_often_as_the_rate_asks():
    assert first(Burst(10, size=3), 7) == [0.0, 0.0, 0.0, 0.3, 0.3, 0.3, 0.6]


def test_a_replay_begins_with_its_first_time_in_order_and_as_fast_as_asked():
    plan = Replay([1002.0, 1000.0, 1001.0], speed=2)

    assert list(plan.times_s()) == [0.0, 0.5, 1.0]
    assert plan.rate_per_s == 3.0


@pytest.mark.parametrize("plan", [Constant(9), Poisson(9), Burst(9, 2), Ramp(1, 17, 10), Replay([0, 0.5, 0.7, 3])])
def test_the_shares_of_several_processes_are_together_what_one_would_send(plan: Arrivals):
    whole = first(plan, 60)
    shares = [first(Share(plan, index, 3), len(whole)) for index in range(3)]

    together = sorted(itertools.chain(*shares))[: len(whole)]
    assert together == whole
    assert sum(Share(plan, index, 3).rate_per_s for index in range(3)) == pytest.approx(plan.rate_per_s)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Constant(0),
        lambda: Poisson(float("nan")),
        lambda: Poisson(float("inf")),
        lambda: Burst(5, 0),
        lambda: Ramp(1, -1, 5),
        lambda: Replay([]),
        lambda: Replay([0.0, float("nan")]),
        lambda: Replay([1.0], speed=0),
    ],
)
def test_a_plan_that_cannot_be_is_refused_where_it_is_made(make):
    with pytest.raises(ValueError, match=r"rate|time|burst"):
        make()
