import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redserve.batching.batch import Batch
from redserve.batching.batch_queue import BatchQueue
from redserve.batching.cost import CostModel
from redserve.batching.policy import BatchPolicy
from redserve.batching.waiting import Waiting
from redserve.errors import QueueFull


def waiting(arrived_s: float = 0.0, **rest: Any) -> Waiting:
    return Waiting(arrived_s=arrived_s, **rest)


def queue_of(*requests: Waiting, **policy: float) -> BatchQueue[Waiting]:
    queue: BatchQueue[Waiting] = BatchQueue(BatchPolicy(**policy))
    for request in requests:
        queue.offer(request)
    return queue


def taken(queue: BatchQueue[Waiting], now_s: float = 0.0) -> Batch[Waiting]:
    batch = queue.take(now_s=now_s)
    assert batch is not None
    return batch


def test_an_empty_queue_is_never_due():
    queue = queue_of()

    assert queue.due_s() == math.inf
    assert queue.take(now_s=1e9) is None
    assert queue.take(now_s=math.inf) is None


def test_without_a_delay_what_waits_is_due_at_once():
    first, second = waiting(1.0), waiting(2.0)
    queue = queue_of(first, second)

    assert queue.due_s() <= 1.0
    assert taken(queue, 2.0) == Batch([first, second], rows=2, why="idle")
    assert (queue.rows, len(queue)) == (0, 0)


def test_a_full_batch_leaves_the_rest_in_line():
    requests = [waiting(float(i)) for i in range(5)]
    queue = queue_of(*requests, max_batch_size=3)

    assert taken(queue, 5.0) == Batch(requests[:3], rows=3, why="full")
    assert taken(queue, 5.0) == Batch(requests[3:], rows=2, why="idle")


def test_what_waits_can_wait_until_a_batch_is_full():
    queue = queue_of(waiting(), waiting(), max_batch_size=3)
    assert queue.can_wait(1e9)

    queue.offer(waiting())
    assert not queue.can_wait(0.0)


def test_the_oldest_request_bounds_the_delay():
    first, second = waiting(0.0), waiting(0.004)
    queue = queue_of(first, second, max_queue_delay_s=0.005)

    assert queue.due_s() == 0.005
    assert queue.take(now_s=0.004) is None
    assert taken(queue, 0.005) == Batch([first, second], rows=2, why="delay")


def test_a_full_batch_ends_the_delay():
    requests = [waiting(0.001 * i) for i in range(3)]
    queue = queue_of(*requests[:2], max_batch_size=3, max_queue_delay_s=1.0)
    assert not queue.is_full

    queue.offer(requests[2])

    assert queue.is_full
    assert queue.due_s() == -math.inf
    assert taken(queue, 0.002).why == "full"


def test_no_delay_holds_at_the_end_of_time():
    queue = queue_of(waiting(5.0), max_queue_delay_s=10.0)

    assert taken(queue, math.inf).rows == 1


def test_rows_are_counted_not_requests():
    large, small, next_one = waiting(rows=5), waiting(rows=2), waiting(rows=5)
    queue = queue_of(large, small, next_one, max_batch_size=8)

    assert queue.rows == 12
    assert taken(queue) == Batch([large, small], rows=7, why="full")  # the next would not fit
    assert taken(queue) == Batch([next_one], rows=5, why="idle")


def test_nobody_is_overtaken_by_a_smaller_request():
    first, large, small = waiting(rows=3), waiting(rows=4), waiting(rows=1)
    queue = queue_of(first, large, small, max_batch_size=4)

    assert taken(queue).requests == [first]
    assert taken(queue).requests == [large]
    assert taken(queue).requests == [small]


def test_groups_do_not_mix_and_the_one_whose_head_came_first_goes_first():
    a, b, a_too = waiting(0.0, group="a"), waiting(1.0, group="b"), waiting(2.0, group="a")
    late = waiting(3.0, group="b")
    queue = queue_of(a, b, a_too, late)

    assert taken(queue, 3.0).requests == [a, a_too]
    assert taken(queue, 3.0).requests == [b, late]


def test_a_full_group_goes_before_an_older_one_that_may_still_wait():
    old = waiting(0.0, group="a")
    several = [waiting(0.1, group="b"), waiting(0.2, group="b")]
    queue = queue_of(old, *several, max_batch_size=2, max_queue_delay_s=1.0)

    assert taken(queue, 0.2) == Batch(several, rows=2, why="full")
    assert queue.take(now_s=0.2) is None
    assert taken(queue, 1.0) == Batch([old], rows=1, why="delay")


def test_full_groups_cannot_starve_one_that_has_waited_long_enough():
    old = waiting(0.0, group="a")
    several = [waiting(0.1, group="b"), waiting(0.2, group="b")]
    queue = queue_of(old, *several, max_batch_size=2, max_queue_delay_s=1.0)

    assert taken(queue, 1.0).requests == [old]


def test_the_bound_is_in_rows():
    queue = queue_of(waiting(rows=6), max_queue_rows=8)

    with pytest.raises(QueueFull) as full:
        queue.offer(waiting(rows=3))

    assert (full.value.waiting, full.value.limit, full.value.unit) == (6, 8, "rows")
    queue.offer(waiting(rows=2))
    assert queue.rows == 8


def test_the_bound_is_in_bytes_too():
    queue = queue_of(waiting(size_bytes=60), max_queue_bytes=100)

    with pytest.raises(QueueFull) as full:
        queue.offer(waiting(size_bytes=41))

    assert (full.value.waiting, full.value.limit, full.value.unit) == (60, 100, "bytes")
    queue.offer(waiting(size_bytes=40))
    assert queue.size_bytes == 100


def test_several_are_queued_together_or_not_at_all():
    queue = queue_of(waiting(rows=2), max_queue_rows=6)

    with pytest.raises(QueueFull):
        queue.offer(waiting(rows=4), waiting(rows=1))

    assert (queue.rows, len(queue)) == (2, 1)


def test_an_empty_queue_takes_what_is_larger_than_its_bounds():
    queue = queue_of(max_batch_size=8, max_queue_rows=4, max_queue_bytes=10)

    queue.offer(waiting(rows=8, size_bytes=50), waiting(rows=8, size_bytes=50))

    assert queue.rows == 16
    with pytest.raises(QueueFull):
        queue.offer(waiting())


@pytest.mark.parametrize("rows", [0, -1, 9])
def test_rows_that_fit_no_batch_are_a_mistake_of_the_caller(rows: int):
    with pytest.raises(ValueError, match="1 to 8"):
        queue_of(max_batch_size=8).offer(waiting(rows=rows))


def test_a_cancelled_request_frees_its_place():
    first, second, third = waiting(0.0, rows=3, size_bytes=7), waiting(1.0), waiting(2.0)
    queue = queue_of(first, second, third, max_batch_size=4, max_queue_delay_s=5.0)
    assert queue.is_full

    assert queue.cancel(first)

    assert not queue.is_full
    assert (queue.rows, queue.size_bytes, queue.due_s()) == (2, 0, 6.0)
    assert taken(queue, 6.0).requests == [second, third]


def test_what_was_taken_or_cancelled_cannot_be_cancelled():
    request, other = waiting(), waiting()
    queue = queue_of(request, other)
    assert queue.cancel(other)
    assert taken(queue).requests == [request]

    assert not queue.cancel(request)
    assert not queue.cancel(other)
    assert queue.rows == 0


def test_clearing_gives_everything_back_oldest_first():
    requests = [waiting(float(i), group="ab"[i % 2], size_bytes=1) for i in range(4)]
    queue = queue_of(*requests)

    assert queue.clear() == requests
    assert (queue.rows, queue.size_bytes, queue.due_s()) == (0, 0, math.inf)


def test_who_is_due_first_runs_first():
    last, first, second = waiting(deadline_s=3.0), waiting(deadline_s=1.0), waiting(deadline_s=2.0)
    queue = queue_of(last, first, second, max_batch_size=2)

    assert taken(queue).requests == [first, second]
    assert taken(queue).requests == [last]


def test_who_has_no_deadline_is_overtaken_by_those_due_within_a_second_of_its_arrival():
    patient, urgent, later = waiting(0.0), waiting(0.5, deadline_s=0.99), waiting(0.5, deadline_s=1.01)
    queue = queue_of(patient, later, urgent, max_batch_size=1)

    assert [taken(queue, 0.5).requests for _ in range(3)] == [[urgent], [patient], [later]]


def test_the_expired_are_never_taken():
    expired, alive = waiting(deadline_s=1.0), waiting(deadline_s=2.0)
    queue = queue_of(alive, expired)

    assert taken(queue, 1.0).requests == [alive]
    assert queue.pop_hopeless() == [expired]
    assert queue.pop_hopeless() == []
    assert (queue.rows, len(queue)) == (0, 0)


def test_when_all_have_expired_nothing_is_taken():
    queue = queue_of(waiting(deadline_s=1.0), waiting(deadline_s=1.0, group="b"))

    assert queue.take(now_s=2.0) is None
    assert len(queue.pop_hopeless()) == 2
    assert queue.due_s() == math.inf


def test_expiry_tells_the_next_deadline():
    patient, first, second = waiting(0.0), waiting(deadline_s=1.0, group="a"), waiting(1.5, deadline_s=2.7)
    queue = queue_of(patient, second, first)

    assert queue.expire(now_s=0.5) == 1.0
    assert queue.pop_hopeless() == []
    assert queue.expire(now_s=1.0) == 2.7
    assert queue.pop_hopeless() == [first]
    assert queue.expire(now_s=2.7) == math.inf
    assert queue.pop_hopeless() == [second]
    assert taken(queue, 3.0).requests == [patient]


def costed(*requests: Waiting, service_s: float = 0.010, **policy: float) -> BatchQueue[Waiting]:
    """A queue that knows what a batch takes."""
    queue: BatchQueue[Waiting] = BatchQueue(BatchPolicy(**policy), CostModel({1: service_s}))
    for request in requests:
        queue.offer(request)
    return queue


def test_a_batch_is_cut_down_to_a_size_and_what_is_left_is_in_the_next_one():
    policy = BatchPolicy(max_batch_size=4, batch_sizes=(1, 2, 4))
    queue: BatchQueue[Waiting] = BatchQueue(policy, CostModel({1: 0.001, 2: 0.001, 4: 0.004}, policy.batch_sizes))
    first, second, third = waiting(), waiting(), waiting()
    queue.offer(first, second, third)

    batch = taken(queue)
    assert (batch.requests, batch.why) == ([first, second], "full")
    batch = taken(queue)
    assert (batch.requests, batch.why) == ([third], "idle")
    assert queue.rows == 0


@pytest.mark.parametrize("sizes", [(2, 1, 4), (0, 4), (1, 2), (1, 2, 8), (1, 2, 2, 4)])
def test_sizes_that_do_not_ascend_to_the_largest_batch_are_refused(sizes):
    with pytest.raises(ValueError, match="batch_sizes must ascend"):
        BatchPolicy(max_batch_size=4, batch_sizes=sizes)


def test_who_cannot_be_in_time_any_more_leaves_when_the_batch_that_forgoes_it_is_taken():
    hopeless, fine = waiting(deadline_s=0.009), waiting(deadline_s=0.1)
    queue = costed(hopeless, fine)

    assert taken(queue).requests == [fine]
    assert queue.pop_hopeless() == [hopeless]


def test_who_is_passed_over_stays_where_another_engine_may_still_be_in_time():
    cost = CostModel({1: 0.001, 2: 0.010})
    tight, fine, other = waiting(deadline_s=0.005), waiting(deadline_s=0.1), waiting(deadline_s=0.1)
    queue: BatchQueue[Waiting] = BatchQueue(BatchPolicy(max_batch_size=3), cost)
    for request in (tight, fine, other):
        queue.offer(request)

    batch = queue.take(now_s=0.0, others_free_s=0.003)

    assert batch is not None
    assert batch.requests == [fine, other]
    assert queue.pop_hopeless() == []
    assert taken(queue, 0.003).requests == [tight]


def test_where_nobody_can_be_in_time_the_youngest_is_tried_so_that_the_model_may_learn():
    older, youngest = waiting(deadline_s=0.001), waiting(deadline_s=0.002)
    queue = costed(older, youngest)

    assert taken(queue).requests == [youngest]
    assert queue.pop_hopeless() == [older]


def test_a_group_that_cannot_be_in_time_does_not_hold_up_one_that_can():
    hopeless, fine = waiting(deadline_s=0.005, group="a"), waiting(deadline_s=0.1, group="b")
    queue = costed(hopeless, fine)

    assert taken(queue).requests == [fine]


def test_no_deadline_is_missed_for_company_nor_by_who_wakes_a_little_late():
    queue = costed(waiting(0.0, deadline_s=0.030), max_queue_delay_s=0.1)

    assert queue.due_s() == pytest.approx(0.015)  # 10 ms to run, 3 ms for its noise, 2 ms to wake
    assert taken(queue, 0.017).why == "delay"


def test_it_can_wait_as_long_as_no_deadline_is_missed_for_it():
    queue = costed(waiting(0.0, deadline_s=0.030), waiting(0.0))

    assert queue.can_wait(0.014)
    assert not queue.can_wait(0.016)


def test_a_full_group_does_not_end_the_delay_of_one_that_is_due_earlier():
    alone = waiting(0.0, deadline_s=5.0, group="a")
    several = [waiting(0.0, deadline_s=6.0, group="b") for _ in range(2)]
    queue = costed(alone, *several, max_batch_size=2, max_queue_delay_s=0.1)

    assert taken(queue, 0.01) == Batch(several, rows=2, why="full")


steps = st.lists(
    st.tuples(st.just("offer"), st.integers(1, 4), st.sampled_from("ab"), st.none() | st.floats(0.0, 0.1))
    | st.tuples(st.sampled_from(["take", "expire", "cancel"]), st.integers(0, 30)),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(steps, st.booleans(), st.sampled_from([0.0, 0.004]), st.floats(0.0, 0.01))
def test_whatever_happens_nobody_is_lost_nobody_runs_expired_and_the_sums_are_right(
    steps: list[Any], knows_costs: bool, max_queue_delay_s: float, pause_s: float
):
    cost = CostModel({1: 0.002, 4: 0.008}) if knows_costs else None
    policy = BatchPolicy(max_batch_size=4, max_queue_rows=20, max_queue_delay_s=max_queue_delay_s)
    queue: BatchQueue[Waiting] = BatchQueue(policy, cost)
    inside: list[Waiting] = []
    now_s = 0.0
    for step, *values in steps:
        now_s += pause_s
        if step == "offer":
            rows, group, budget_s = values
            deadline_s = math.inf if budget_s is None else now_s + budget_s
            request = waiting(now_s, rows=rows, group=group, deadline_s=deadline_s, size_bytes=10 * rows)
            try:
                queue.offer(request)
                inside.append(request)
            except QueueFull:
                assert queue.rows + rows > 20
        elif step == "cancel" and inside:
            assert queue.cancel(inside.pop(values[0] % len(inside)))
        elif step == "take":
            batch = queue.take(now_s=now_s)
            for request in batch.requests if batch else []:
                assert request.deadline_s > now_s
                assert request.group == batch.requests[0].group
                inside.remove(request)
            if batch is not None:
                assert [request.turn_s for request in batch.requests] == sorted(
                    request.turn_s for request in batch.requests
                )
                assert batch.rows == sum(request.rows for request in batch.requests) <= 4
            elif not max_queue_delay_s:
                assert all(request.deadline_s <= now_s for request in inside)
        elif step == "expire":
            next_s = queue.expire(now_s=now_s)
            assert next_s > now_s
        for request in queue.pop_hopeless():
            assert request.deadline_s <= now_s or knows_costs
            inside.remove(request)
        assert queue.rows == sum(request.rows for request in inside)
        assert queue.size_bytes == sum(request.size_bytes for request in inside)
        assert queue.has_deadlines == any(request.deadline_s != math.inf for request in inside)

    assert queue.clear() == inside
    assert (queue.rows, queue.size_bytes, queue.has_deadlines) == (0, 0, False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_batch_size": 0},
        {"max_queue_delay_s": -0.1},
        {"max_queue_delay_s": math.inf},
        {"max_queue_rows": 0},
        {"max_queue_bytes": 0},
        {"max_reruns": -1},
        {"slo_s": 0.0},
        {"slo_s": math.inf},
    ],
)
def test_a_policy_out_of_range_fails_where_it_is_made(wrong: dict[str, float]):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BatchPolicy(**wrong)
