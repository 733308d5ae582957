"""Who may join, decided by the real classes, told the time."""

import math
from typing import Any

import pytest

from redserve.batching.admission import Admission
from redserve.batching.batch import Batch
from redserve.batching.batch_queue import BatchQueue
from redserve.batching.cost import CostModel
from redserve.batching.policy import BatchPolicy
from redserve.batching.run import Instance, Run
from redserve.batching.waiting import Waiting
from redserve.errors import PredictedLate, QueueFull

TEN_MS = {1: 0.010, 4: 0.010}


class Place:
    """One queue, its instances, and its door."""

    def __init__(self, service_times_s: dict[int, float] = TEN_MS, *, instances: int = 1, **numbers: Any) -> None:
        policy = BatchPolicy(**{"max_batch_size": 4, **numbers})
        self.cost = CostModel(service_times_s)
        self.cost.noise = 0.0
        self.queue: BatchQueue[Waiting] = BatchQueue(policy, self.cost)
        self.running: dict[Any, Run[Waiting]] = {}
        self.instances = [Instance() for _ in range(instances)]
        for instance in self.instances:
            instance.worker = object()  # type: ignore[assignment]
        self.admission = Admission(
            policy, cost=self.cost, queue=self.queue, running=self.running, instances=self.instances
        )

    def runs(self, rows: int, *, since_s: float) -> None:
        """One instance is busy."""
        worker: Any = object()
        self.running[worker] = Run(
            Batch([Waiting(arrived_s=since_s, rows=rows)], rows, "idle"), worker, taken_s=since_s
        )

    def waits(self, count: int, *, rows: int = 1) -> None:
        """So many are queued already, and go before everybody else."""
        for _ in range(count):
            self.queue.offer(Waiting(arrived_s=-9.0, rows=rows))

    def admit(self, now_s: float, budget_s: float = math.inf, *, rows: int = 1, parts: int = 1, **rest: Any) -> None:
        self.admission.admit(
            [Waiting(arrived_s=now_s, deadline_s=now_s + budget_s, rows=rows, **rest) for _ in range(parts)]
        )

    def late_s(self, now_s: float, budget_s: float, **rest: Any) -> float:
        """By how much a request is refused."""
        with pytest.raises(PredictedLate) as refused:
            self.admit(now_s, budget_s, **rest)
        assert refused.value.retry_after_s == refused.value.late_s
        return round(refused.value.late_s, 6)


def test_what_runs_what_waits_and_its_own_batch_must_end_before_the_deadline():
    place = Place()
    place.runs(4, since_s=0.0)
    place.waits(4)

    assert place.late_s(0.002, 0.0275) == 0.0005  # 8 ms of the running, 10 of the waiting, 10 of its own
    place.admit(0.002, 0.0285)


def test_one_standard_deviation_of_all_that_runs_before_must_fit_too():
    place = Place()
    place.cost.noise = 0.2**2
    place.waits(12)

    assert place.late_s(0.0, 0.0435) == 0.0005  # four batches of 10 ms, each give or take 2: 4 ms together
    place.admit(0.0, 0.0445)


def test_the_deviation_of_a_small_batch_is_its_own_and_not_that_of_a_full_one():
    place = Place({1: 0.001, 2: 0.002, 3: 0.003, 4: 0.1})
    place.cost.noise = 0.2**2
    place.waits(1)

    assert place.late_s(0.0, 0.0023) == 0.0001  # two rows in 2 ms, give or take 0.4
    place.admit(0.0, 0.0025)


def test_who_is_due_earlier_goes_before_those_who_wait():
    place = Place()
    place.runs(4, since_s=0.0)
    for _ in range(8):
        place.admit(0.001, 1.0)

    place.admit(0.002, 0.0185)
    assert place.late_s(0.002, 0.0175) == 0.0005


def test_an_empty_queue_lets_everybody_in_or_a_wrong_model_would_never_be_corrected():
    place = Place({1: 3600.0})
    place.runs(1, since_s=0.0)

    place.admit(0.001, 0.001)

    assert place.queue.rows == 1


def test_without_a_deadline_nobody_is_predicted_late():
    place = Place({1: 3600.0})
    for _ in range(100):
        place.admit(0.0)

    assert place.queue.rows == 100


def test_who_waits_and_will_be_late_makes_room_for_who_will_not():
    place = Place()
    place.runs(4, since_s=0.0)
    for _ in range(4):
        place.admit(0.0, 0.0205)
    place.cost.observe(rows=4, seconds=0.012)  # it takes a little longer than they were admitted by

    place.admit(0.001, 0.0255)

    assert place.queue.rows == 1
    assert [request.deadline_s for request, _ in place.admission.displaced] == [0.0205] * 4
    assert [round(late_s, 6) for _, late_s in place.admission.displaced] == [0.0003] * 4


def test_who_would_be_late_even_so_takes_nobodys_place():
    place = Place()
    place.runs(4, since_s=0.0)
    place.admit(0.0, 0.0205)
    place.cost.observe(rows=4, seconds=0.012)

    place.late_s(0.001, 0.0185)

    assert place.queue.rows == 1


def test_who_empties_the_queue_is_let_in_whatever_else_is_expected():
    place = Place()
    place.runs(4, since_s=0.0)
    place.admit(0.0, 0.0205)
    place.cost.observe(rows=4, seconds=0.012)
    place.cost.noise = 0.2**2

    place.admit(0.001, 0.021)  # 1.2 ms to spare, where one standard deviation is 2.9

    assert place.queue.rows == 1
    assert len(place.admission.displaced) == 1


def test_nobody_makes_room_while_a_failed_batch_is_run_again():
    place = Place()
    place.runs(4, since_s=0.0)
    place.admit(0.0, 0.0205)
    place.cost.observe(rows=4, seconds=0.012)
    for running in place.running.values():
        running.is_clean = False

    place.late_s(0.001, 0.0245, rows=4)

    assert place.queue.rows == 1


def test_instances_share_the_work():
    place = Place(instances=2)
    place.runs(4, since_s=0.0)
    place.runs(4, since_s=0.005)
    place.waits(8)

    assert place.late_s(0.006, 0.0235) == 0.0005  # 4 ms until the first is free, two batches by two, its own


def test_a_free_instance_takes_it_now():
    place = Place(instances=2)
    place.runs(4, since_s=0.0)
    place.admit(0.001)

    place.admit(0.001, 0.0105)


def test_a_stuck_instance_does_not_count():
    place = Place(instances=2)
    place.instances[0].worker = None
    place.runs(4, since_s=0.0)
    place.admit(0.001)

    assert place.late_s(0.001, 0.0105) == 0.0085


def test_behind_a_batch_that_hangs_nobody_is_let_in_for_nothing():
    place = Place()
    place.runs(4, since_s=0.0)
    place.admit(0.5)

    assert place.late_s(0.5, 0.050) == 0.45  # it should have ended 490 ms ago


def test_another_group_that_goes_before_is_waited_for():
    place = Place()
    place.admit(0.0, 0.015, group="sooner")
    place.admit(0.0, 5.0, group="later")

    assert place.late_s(0.0, 0.0195, group="own") == 0.0005
    place.admit(0.0, 0.0205, group="own")


def test_all_parts_of_a_request_are_in_time_or_none_is_queued():
    place = Place()
    place.waits(1)

    assert place.late_s(0.0, 0.0295, rows=4, parts=2) == 0.0005  # 9 rows are three batches
    assert place.queue.rows == 1
    place.admit(0.0, 0.0305, rows=4, parts=2)
    assert place.queue.rows == 9


def test_rows_that_do_not_fill_a_batch_are_reckoned_with():
    place = Place()
    for _ in range(40):
        place.admission.taken(Batch([Waiting(arrived_s=0.0, rows=3)], 3, "full"))  # the next had 2 rows
    place.waits(6, rows=3)

    assert place.late_s(0.0, 0.0695, rows=3) == 0.0005


def test_while_little_is_known_no_more_may_wait_than_two_batches_less_than_the_budget_has_time_for():
    place = Place({})
    for _ in range(2):
        place.cost.observe(rows=4, seconds=0.010)
    assert not place.cost.knows_enough
    for _ in range(12):
        place.admit(0.0, 0.050)

    with pytest.raises(QueueFull) as full:
        place.admit(0.0, 0.050)

    assert (full.value.waiting, full.value.limit) == (12, 12)
    assert full.value.retry_after_s == 0.0


def test_while_nothing_is_known_the_configured_bound_holds_alone():
    place = Place({}, max_queue_rows=3)
    for _ in range(3):
        place.admit(0.0, 0.001)

    with pytest.raises(QueueFull) as full:
        place.admit(0.0, 0.001)

    assert full.value.retry_after_s is None


@pytest.mark.parametrize(
    ("rows", "parts", "retry_after_s"), [(1, 1, 0.008), (4, 1, 0.008), (4, 2, 0.018), (4, 3, 0.028)]
)
def test_a_full_queue_says_when_there_is_room(rows: int, parts: int, retry_after_s: float):
    place = Place(max_queue_rows=12)
    place.runs(4, since_s=-0.002)
    for _ in range(12):
        place.admit(0.0)

    with pytest.raises(QueueFull) as full:
        place.admit(0.0, rows=rows, parts=parts)

    assert full.value.retry_after_s == pytest.approx(retry_after_s)


def test_a_queue_full_of_bytes_says_when_there_is_room_too():
    place = Place(max_queue_bytes=10)
    place.admit(0.0, size_bytes=8)

    with pytest.raises(QueueFull) as full:
        place.admit(0.0, size_bytes=3)

    assert (full.value.unit, full.value.retry_after_s) == ("bytes", 0.0)


def test_a_failed_batch_is_not_run_again_while_more_than_half_of_what_may_wait_does():
    place = Place(max_queue_rows=8)
    for _ in range(4):
        place.admit(0.0)
    assert place.admission.has_time_for(4, now_s=0.0)

    place.admit(0.0)

    assert not place.admission.has_time_for(4, now_s=0.0)


def test_a_failed_batch_is_not_run_again_once_somebody_was_refused_for_it():
    place = Place()
    place.admit(0.0)
    place.late_s(0.0, 0.005)
    assert not place.admission.has_time_for(4, now_s=0.0)

    place.admission.taken(Batch([Waiting(arrived_s=0.0, rows=4)], 4, "full"))

    assert place.admission.has_time_for(4, now_s=0.0)


def test_a_failed_batch_is_not_run_again_where_somebody_who_waits_would_be_late_for_it():
    place = Place()
    place.admit(0.0, 0.050)

    assert place.admission.has_time_for(4, now_s=0.0295)
    assert not place.admission.has_time_for(4, now_s=0.0305)
