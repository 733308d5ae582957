"""May this request join? Pure logic, told the time.

now ──> what runs ends ──> the batches ahead of it ──> its own batch ──> z * noise ──> before its deadline?
"""

import math
from collections.abc import Collection, Sequence
from typing import Generic, TypeVar

from redserve.batching.batch_queue import Batch, BatchQueue
from redserve.batching.cost import CostModel
from redserve.batching.line import Waiting
from redserve.batching.policy import BatchPolicy
from redserve.batching.run import Run
from redserve.errors import PredictedLate

W = TypeVar("W", bound=Waiting)

_SMOOTHING = 0.2


class Admission(Generic[W]):
    """Predicts when a request would be answered."""

    def __init__(self, policy: BatchPolicy, cost: CostModel, queue: BatchQueue[W]) -> None:
        self._cost = cost
        self._queue = queue
        self._max_rows = policy.max_batch_size
        self._full_rows = float(policy.max_batch_size)
        self._usual_rows = 1.0

    def taken(self, batch: Batch[W]) -> None:
        """Learn from what left the queue."""
        self._usual_rows += _SMOOTHING * (batch.rows - self._usual_rows)
        if batch.why == "full":
            self._full_rows += _SMOOTHING * (batch.rows - self._full_rows)

    def check(self, requests: Sequence[W], running: Collection[Run[W]], *, instances: int, now_s: float) -> None:
        """All of `requests`, which are one, or none of them."""
        if not len(self._queue) or not self._cost.is_known:
            return
        rows = sum(request.rows for request in requests)
        first = requests[0]
        late_s = now_s + self._finish_s(first, rows, running, instances, now_s) - first.deadline_s
        if late_s > 0:
            raise PredictedLate(late_s=late_s)

    def _finish_s(self, first: W, rows: int, running: Collection[Run[W]], instances: int, now_s: float) -> float:
        service_s = self._cost.service_s
        rests_s = [abs(run.taken_s + service_s(run.batch.rows) - now_s) for run in running]
        before, behind, others = self._queue.around(first)
        full_s = service_s(round(self._full_rows))
        through = before + rows
        full_batches = math.ceil(through / self._full_rows) - 1
        own = max(through - full_batches * self._full_rows + behind, self._usual_rows)
        own_s = service_s(math.ceil(min(own, self._full_rows)))
        ahead_s = full_batches * full_s
        for other in others:
            other_s = service_s(min(other, round(self._full_rows)))
            ahead_s += math.ceil(other / self._full_rows) * other_s
        first_rest_s = min(rests_s) if len(rests_s) >= instances else 0.0
        return first_rest_s + ahead_s / instances + own_s
