import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.batching.cost import CostModel

WARM_UP = {1: 0.0042, 2: 0.0044, 4: 0.0048, 8: 0.0056, 16: 0.0072, 32: 0.0104}  # 4 ms + 0.2 ms a row


def test_nothing_is_known_at_first():
    cost = CostModel({})

    assert (cost.knows_something, cost.knows_enough) == (False, False)
    assert cost.service_s(8) == 0.0


def test_the_first_call_ever_is_not_learnt_from():
    cost = CostModel({})

    cost.observe(rows=1, seconds=3.0)
    assert not cost.knows_something
    cost.observe(rows=1, seconds=0.004)
    assert (cost.knows_something, cost.knows_enough) == (True, False)
    cost.observe(rows=1, seconds=0.004)
    assert cost.knows_enough
    assert cost.service_s(1) == pytest.approx(0.004)


def test_what_was_measured_beforehand_is_known_at_once():
    cost = CostModel(WARM_UP)

    assert cost.knows_enough
    assert {rows: cost.service_s(rows) for rows in WARM_UP} == pytest.approx(WARM_UP)


@pytest.mark.parametrize("rows", [3, 12, 24, 31])
def test_between_sizes_it_interpolates(rows: int):
    assert CostModel(WARM_UP).service_s(rows) == pytest.approx(0.004 + 0.0002 * rows, rel=0.02)


def test_a_size_not_seen_yet_is_predicted_too_short_rather_than_too_long():
    cost = CostModel({1: 0.002, 2: 0.0022})

    assert cost.service_s(64) == pytest.approx(0.0022)


@pytest.mark.parametrize("wrong", [{0: 0.001}, {1: 0.0}, {1: math.nan}, {1: math.inf}])
def test_a_time_that_cannot_be_is_refused(wrong: dict[int, float]):
    with pytest.raises(ValueError, match="cannot take"):
        CostModel(wrong)


def learnt(service_s: object, *, sizes: list[int], noise: float, batches: int, cost: CostModel) -> CostModel:
    draw = random.Random(3)
    for _ in range(batches):
        rows = draw.choice(sizes)
        cost.observe(rows=rows, seconds=service_s(rows) * max(draw.gauss(1, noise), 0.2))  # type: ignore[operator]
    return cost


@pytest.mark.parametrize(
    "service_s",
    [
        pytest.param(lambda rows: 0.004 + 0.0002 * rows, id="linear"),
        pytest.param(lambda rows: 0.002 + 0.0005 * 2 ** (rows - 1).bit_length(), id="padded"),
        pytest.param(lambda rows: 0.002 + 0.003 * -(-rows // 8), id="steps of 8"),
        pytest.param(lambda rows: 0.001 + 0.00001 * rows**2, id="convex"),
    ],
)
def test_any_curve_that_rises_is_learnt_from_noisy_batches(service_s: object):
    cost = learnt(service_s, sizes=list(range(1, 33)), noise=0.3, batches=10_000, cost=CostModel({}))

    for rows in range(1, 33):
        pair = [service_s(rows - 1 + rows % 2), service_s(rows + rows % 2)]  # type: ignore[operator]  # learnt together
        assert 0.87 * min(pair) < cost.service_s(rows) < 1.15 * max(pair)
    assert 0.05 < cost.noise < 0.14


def test_a_device_that_is_half_as_fast_is_known_after_a_dozen_batches_at_sizes_that_did_not_run_too():
    cost = learnt(lambda rows: WARM_UP[rows], sizes=list(WARM_UP), noise=0.05, batches=500, cost=CostModel(WARM_UP))

    for _ in range(12):
        cost.observe(rows=32, seconds=2 * WARM_UP[32])

    for rows, seconds in WARM_UP.items():
        assert 1.8 * seconds < cost.service_s(rows) < 2.2 * seconds


def test_a_size_that_is_never_seen_does_not_follow_the_noise_of_another():
    cost = learnt(lambda rows: 0.01, sizes=[32], noise=0.3, batches=50_000, cost=CostModel(WARM_UP))

    assert cost.service_s(1) == pytest.approx(WARM_UP[1], rel=0.2)


def test_one_batch_that_takes_a_hundred_times_as_long_changes_little():
    cost = learnt(lambda rows: 0.01, sizes=[32], noise=0.05, batches=500, cost=CostModel(WARM_UP))

    cost.observe(rows=32, seconds=1.0)

    assert cost.service_s(32) == pytest.approx(0.01, rel=0.1)


@given(
    st.lists(st.tuples(st.integers(1, 300), st.floats(0.0, 10.0)), max_size=60),
    st.dictionaries(st.integers(1, 300), st.floats(1e-6, 10.0), max_size=5),
)
def test_predictions_never_fall_with_the_rows_and_are_never_negative(
    batches: list[tuple[int, float]], warm_up: dict[int, float]
):
    cost = CostModel(warm_up)
    for rows, seconds in batches:
        cost.observe(rows=rows, seconds=seconds)

    predictions = [cost.service_s(rows) for rows in range(1, 301)]

    assert all(before <= after * (1 + 1e-9) for before, after in pairwise(predictions))
    assert predictions[0] >= 0
    assert all(map(math.isfinite, predictions))
    assert cost.noise >= 0


def test_a_size_that_seemed_too_slow_to_be_run_is_unknown_again_after_long():
    cost = CostModel({1: 0.004, 2: 0.004, 32: 5.0})

    for _ in range(3_000):  # nobody runs 32 rows any more
        cost.observe(rows=1, seconds=0.004)
        cost.observe(rows=2, seconds=0.004)

    assert cost.service_s(32) == pytest.approx(0.004)


def test_one_long_first_run_of_a_size_does_not_make_it_unaffordable():
    cost = CostModel({1: 0.004, 32: 0.010})

    cost.observe(rows=8, seconds=3.0)

    assert cost.service_s(8) < 0.03


@pytest.mark.parametrize("truth", [100, 480_000])
def test_a_warm_up_that_was_wrong_by_orders_of_magnitude_is_believed_for_five_batches(truth):
    cost = CostModel(WARM_UP)
    noise = cost.noise

    for _ in range(5):
        cost.observe(rows=1, seconds=truth * WARM_UP[1])

    assert cost.service_s(1) == pytest.approx(truth * WARM_UP[1])
    assert cost.service_s(32) > 0.3 * truth * WARM_UP[32]
    assert cost.noise == noise


def test_stalls_with_a_usual_batch_in_between_are_never_believed():
    cost = CostModel(WARM_UP)

    for _ in range(50):
        for _ in range(4):
            cost.observe(rows=1, seconds=10.0)
        for _ in range(40):
            cost.observe(rows=1, seconds=WARM_UP[1])

    assert cost.service_s(1) < 3 * WARM_UP[1]


@pytest.mark.parametrize("seed", range(6))
def test_where_the_machine_stalls_and_the_load_changes_no_size_is_expected_to_take_ten_of_the_longest_stalls(seed: int):
    draw = random.Random(seed)
    cost = CostModel({rows: seconds / 100 for rows, seconds in WARM_UP.items()})

    for _ in range(40):
        largest, stalls = draw.choice([1, 8, 32]), draw.choice([0.0, 0.02, 0.3, 0.95])
        for _ in range(draw.choice([3, 30, 60])):
            for _ in range(100):
                rows = draw.randint(1 + largest // 2, largest)
                stall_s = draw.uniform(0.001, 0.006) if draw.random() < stalls else 0.0
                cost.observe(rows=rows, seconds=(40e-6 + 2e-6 * rows) * draw.uniform(0.8, 1.2) + stall_s)
            assert max(map(cost.service_s, WARM_UP)) < 0.06


def test_a_size_that_has_not_run_for_long_says_nothing_of_larger_ones_and_is_corrected_by_its_first_batch():
    cost = CostModel({1: 5.0, 16: 5.0})
    for _ in range(3_000):
        cost.observe(rows=16, seconds=0.010)
    assert cost.service_s(16) == pytest.approx(0.010, rel=0.1)
    assert cost.service_s(1) <= cost.service_s(16)

    cost.observe(rows=1, seconds=0.004)

    assert cost.service_s(1) == pytest.approx(0.004)
    assert cost.service_s(16) == pytest.approx(0.010, rel=0.1)


def test_where_batches_are_padded_they_take_as_long_as_the_size_they_are_padded_to():
    cost = CostModel({1: 0.001, 8: 0.002, 16: 0.009}, sizes=(1, 8, 16))
    assert [cost.service_s(rows) for rows in (1, 2, 8, 9, 16)] == [0.001, 0.002, 0.002, 0.009, 0.009]

    learnt(lambda rows: 0.020, sizes=[9, 11, 15], noise=0.0, batches=500, cost=cost)
    assert cost.service_s(16) == pytest.approx(0.020, rel=0.02)
