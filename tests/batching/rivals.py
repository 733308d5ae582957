"""Other ways to meet overload, to compare with: each a queue in place of the real one, in the same virtual time.

Those that need service times are told the true ones, of the start of the run; redserve has to learn them.
"""

import math
from typing import Any

from batching.overload import Plan, Workload
from redserve.batching import BatchPolicy
from redserve.batching.batch import Batch
from redserve.batching.batch_queue import BatchQueue
from redserve.batching.cost import CostModel
from redserve.errors import PredictedLate


def sized_cap(workload: Workload) -> Plan:
    """First come first served; no more in the queue than can be served in the shortest budget, less two batches."""
    full_s = workload.service_s(workload.max_batch_size)
    per_s = workload.instances * workload.max_batch_size / full_s
    cap = round((min(workload.budgets_s) - 2 * full_s) * per_s)
    return Plan(unbounded(workload, max_queue_rows=max(cap, workload.max_batch_size)))


def codel(workload: Workload) -> Plan:
    """CoDel as in folly, with a target of a quarter of the shortest budget."""
    return Plan(unbounded(workload), lambda numbers: CoDelQueue(numbers, target_s=min(workload.budgets_s) / 4))


def head_drop(workload: Workload) -> Plan:
    """As BentoML does: the oldest is dropped as long as it would be late if what waits ran now."""
    return Plan(unbounded(workload), lambda numbers: HeadDropQueue(numbers, workload), brings_deadlines=True)


def told_admission(workload: Workload) -> Plan:
    """Admission with a margin of 1.1 on full batches, earliest deadline first, and the window drop."""
    return Plan(unbounded(workload), lambda numbers: ToldQueue(numbers, workload), brings_deadlines=True)


RIVALS = {"sized cap": sized_cap, "CoDel": codel, "head drop": head_drop, "admission + window": told_admission}


def unbounded(workload: Workload, max_queue_rows: int = 10**9) -> BatchPolicy:
    return BatchPolicy(max_batch_size=workload.max_batch_size, max_queue_rows=max_queue_rows, linger=False)


class CoDelQueue(BatchQueue[Any]):
    """Where even the shortest wait of an interval exceeds the target, who has waited for twice the target is dropped.

    The wait is that of the head of each batch. Source: folly/executors/Codel.cpp, `overloaded_explicit_now`.
    """

    def __init__(self, numbers: BatchPolicy, *, target_s: float, interval_s: float = 0.1) -> None:
        super().__init__(numbers)
        self._target_s = target_s
        self._interval_s = interval_s
        self._interval_ends_s = 0.0
        self._shortest_s = 0.0
        self._is_overloaded = False

    def take(self, *, now_s: float, is_draining: bool = False, others_free_s: float = math.inf) -> Batch[Any] | None:
        if self._by_arrival:
            waited_s = now_s - next(iter(self._by_arrival)).arrived_s
            if now_s > self._interval_ends_s:
                self._interval_ends_s = now_s + self._interval_s
                self._is_overloaded = self._shortest_s > self._target_s
                self._shortest_s = waited_s
            self._shortest_s = min(self._shortest_s, waited_s)
            while self._is_overloaded and self._by_arrival:
                head = next(iter(self._by_arrival))
                if now_s - head.arrived_s <= 2 * self._target_s:
                    break
                self.cancel(head)
                self._hopeless.append(head)
        return super().take(now_s=now_s, is_draining=is_draining, others_free_s=others_free_s)


class HeadDropQueue(BatchQueue[Any]):
    """Without its waits for company.

    Source: BentoML, `_internal/marshal/dispatcher.py`, `CorkDispatcher.controller`.
    """

    def __init__(self, numbers: BatchPolicy, workload: Workload) -> None:
        super().__init__(numbers)
        self._row_s = (workload.service_s(numbers.max_batch_size) - workload.service_s(1)) / (
            numbers.max_batch_size - 1
        )
        self._fixed_s = workload.service_s(1) - self._row_s
        self._due_s: dict[Any, float] = {}

    def offer(self, *requests: Any) -> None:
        for request in requests:
            self._due_s[request] = request.deadline_s
            request.deadline_s, request.turn_s = math.inf, request.arrived_s
        super().offer(*requests)

    def take(self, *, now_s: float, is_draining: bool = False, others_free_s: float = math.inf) -> Batch[Any] | None:
        while len(self._by_arrival) > 1:
            head = next(iter(self._by_arrival))
            if now_s + self._fixed_s + self._row_s * self.rows < self._due_s[head]:
                break
            self.cancel(head)
            self._hopeless.append(head)
        return super().take(now_s=now_s, is_draining=is_draining, others_free_s=others_free_s)


class ToldQueue(BatchQueue[Any]):
    """Knows the true curve of the start; refuses by it at the door, and takes by it as redserve does."""

    def __init__(self, numbers: BatchPolicy, workload: Workload, margin: float = 1.1) -> None:
        rows = range(1, workload.max_batch_size + 1)
        super().__init__(numbers, CostModel({count: workload.service_s(count) for count in rows}))
        self._workload = workload
        self._margin = margin
        self._free_s = [0.0] * workload.instances

    def offer(self, *requests: Any) -> None:
        (request,) = requests
        before, _, others = self.around(request)
        full = self._policy.max_batch_size
        batches = math.ceil((before + request.rows) / full) + sum(math.ceil(other / full) for other in others)
        start_s = max(min(self._free_s), request.arrived_s)
        late_s = start_s + self._margin * self._workload.service_s(full) * batches / len(self._free_s)
        if len(self) and late_s > request.deadline_s:
            raise PredictedLate(late_s=late_s - request.deadline_s)
        super().offer(request)

    def take(self, *, now_s: float, is_draining: bool = False, others_free_s: float = math.inf) -> Batch[Any] | None:
        batch = super().take(now_s=now_s, is_draining=is_draining, others_free_s=others_free_s)
        if batch is not None:
            self._free_s.remove(min(self._free_s))
            self._free_s.append(now_s + self._workload.service_s(batch.rows))
        return batch
