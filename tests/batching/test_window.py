import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.batching.cost import CostModel
from redserve.batching.waiting import Waiting
from redserve.batching.window import choose_window, cut_to_size

LINEAR = {rows: 0.004 + 0.0002 * rows for rows in (1, 2, 4, 8, 16, 32)}


def line(*due_ms: float, rows: int = 1) -> list[Waiting]:
    return [Waiting(arrived_s=0.0, rows=rows, deadline_s=ms / 1e3) for ms in due_ms]


def window(requests: list[Waiting], *, max_rows: int = 4, now_s: float = 0.0) -> range | None:
    return choose_window(requests, max_rows=max_rows, now_s=now_s, cost=CostModel(LINEAR))


def test_all_run_that_are_in_time_together():
    assert window(line(50, 60, 70)) == range(3)


def test_no_more_run_than_fit():
    assert window(line(50, 60, 70, 80, 90, 100)) == range(4)


def test_who_has_no_deadline_is_passed_over_only_until_its_turn():
    def first_of_seven(now_s: float) -> range | None:
        due_ms = [1e3 * now_s + left_ms for left_ms in (4.9, 4.9, 50, 60, 70, 80)]
        return window([Waiting(arrived_s=0.0), *line(*due_ms)], now_s=now_s)

    assert first_of_seven(0.996) == range(3, 7)
    assert first_of_seven(1.001) == range(4)


def test_the_batch_is_not_made_smaller_to_save_its_oldest():
    assert window(line(4.5, 50, 60, 70)) == range(1, 4)  # alone it would be in time, with the others it is not


def test_who_is_in_time_is_not_passed_over_while_all_fit():
    assert window(line(4.9, 50, 60, 70)) == range(4)


def test_who_would_hardly_be_in_time_is_passed_over_while_the_batch_is_full_without_them():
    assert window(line(4.9, 4.9, 50, 60, 70, 80)) == range(2, 6)


def test_who_is_surely_in_time_is_not_passed_over():
    assert window(line(40, 41, 50, 60, 70, 80)) == range(4)


def test_who_is_surely_in_time_is_not_passed_over_for_being_small():
    small, large = line(40), line(41, 42, rows=4)

    assert window([*small, *large]) == range(1)


def test_nobody_can_be_in_time():
    assert window(line(1, 2, 3)) is None
    assert window(line(50, 60), now_s=0.058) is None


def test_who_has_no_deadline_is_always_in_time_but_makes_nobody_late():
    patient = Waiting(arrived_s=0.0)

    assert window([patient, *line(1, 2)]) is None
    assert window([*line(1, 2), patient]) == range(2, 3)
    assert window([patient, *line(50)]) == range(2)


@given(
    st.lists(st.tuples(st.integers(1, 8), st.floats(0, 0.05) | st.just(math.inf)), max_size=40),
    st.floats(0.0, 0.02),
)
def test_a_window_fits_and_everybody_in_it_is_expected_in_time(drawn: list[tuple[int, float]], now_s: float):
    requests = [Waiting(arrived_s=0.0, rows=rows, deadline_s=deadline_s) for rows, deadline_s in drawn]
    requests.sort(key=lambda request: request.turn_s)
    cost = CostModel(LINEAR)

    chosen = choose_window(requests, max_rows=8, now_s=now_s, cost=cost)

    if chosen is None:
        assert all(now_s + cost.service_s(request.rows) > request.deadline_s for request in requests)
    else:
        rows = sum(requests[index].rows for index in chosen)
        assert 1 <= rows <= 8
        assert all(now_s + cost.service_s(rows) <= requests[index].deadline_s for index in chosen)
        assert chosen.stop == len(requests) or rows + requests[chosen.stop].rows > 8  # the next does not fit


@pytest.mark.parametrize("count", [1, 5, 40])
def test_without_any_deadline_it_is_the_head_of_the_line(count: int):
    requests = [Waiting(arrived_s=float(index)) for index in range(count)]

    assert window(requests) == range(min(count, 4))


SIZES = (1, 2, 4, 8, 16)
FLAT = dict.fromkeys(SIZES, 0.004)
STEEP = {rows: 0.001 * rows for rows in SIZES}


def cut(requests: list[Waiting], costs: dict[int, float], *, sizes: tuple[int, ...] = SIZES, now_s: float = 0.0) -> int:
    """How many of them run."""
    everybody = range(len(requests))
    kept = cut_to_size(requests, everybody, sizes=sizes, now_s=now_s, cost=CostModel(costs, sizes))
    assert kept.start == 0
    return kept.stop


def waiting(count: int, *, rows: int = 1) -> list[Waiting]:
    return [Waiting(arrived_s=0.0, rows=rows) for _ in range(count)]


def test_nine_are_padded_to_sixteen_where_that_costs_hardly_more_than_eight():
    assert cut(waiting(9), FLAT) == 9


def test_of_nine_eight_run_where_sixteen_cost_twice_as_much():
    assert cut(waiting(9), STEEP) == 8


def test_the_measured_cost_says_from_how_many_on_it_is_worth_to_pad():
    costs = {1: 0.001, 2: 0.001, 4: 0.001, 8: 0.001, 16: 0.0015}
    assert [cut(waiting(count), costs) for count in range(9, 17)] == [8, 8, 8, 12, 13, 14, 15, 16]


def test_a_batch_that_has_a_size_is_left_alone():
    assert [cut(waiting(size), STEEP) for size in SIZES] == list(SIZES)


def test_what_is_smaller_than_all_sizes_is_padded():
    assert cut(waiting(3), {4: 1.0, 8: 2.0}, sizes=(4, 8)) == 3


def test_while_no_cost_is_known_everything_is_padded():
    assert cut(waiting(9), {}) == 9


def test_requests_stay_whole_when_a_batch_is_cut_down():
    assert cut(waiting(3, rows=3), STEEP) == 2  # 6 rows for the time of 8, rather than 9 for that of 16
    assert cut(waiting(1, rows=9), STEEP) == 1


def test_nobody_is_left_behind_who_would_be_late_for_it():
    early, late = line(*[50] * 8), line(8.5)
    assert cut([*early, *line(60)], STEEP) == 8
    assert cut([*early, *late], STEEP, now_s=0.0) == 9


@given(
    rows=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    seconds=st.lists(st.floats(1e-4, 1.0), min_size=5, max_size=5),
)
def test_cutting_down_never_brings_fewer_rows_a_second_than_padding(rows, seconds):
    costs = dict(zip(SIZES, sorted(seconds), strict=True))
    requests = [Waiting(arrived_s=0.0, rows=count) for count in rows]
    if sum(rows) > SIZES[-1]:
        return
    cost = CostModel(costs, SIZES)
    kept = sum(rows[: cut(requests, costs)])
    assert kept * cost.service_s(sum(rows)) >= sum(rows) * cost.service_s(kept) * (1 - 1e-9)
