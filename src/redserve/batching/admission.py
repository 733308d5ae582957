"""May this request join? Pure logic, told the time.

    now ──> what runs ends ──> the batches ahead of it run ──> its own batch ends ──> before its deadline?

The next engine that is free is the one whose batch ends first; a batch that has already taken longer than it should is
expected to take as long again, so that behind a hung one nobody is let in for nothing.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Generic, TypeVar

from redserve.batching.batch import Batch
from redserve.batching.batch_queue import BatchQueue
from redserve.batching.cost import CostModel
from redserve.batching.policy import BatchPolicy
from redserve.batching.run import Instance, Run, Worker
from redserve.batching.waiting import NEVER_S, Waiting
from redserve.errors import PredictedLate, QueueFull

W = TypeVar("W", bound=Waiting)

_SMOOTHING: Final = 0.2  # weight of the newest batch
_LOOK_EVERY: Final = 1 / 8  # of the time of a full batch


class Admission(Generic[W]):
    """Lets requests into `queue`, or says why not. What it is given it only reads.

    Args:
        policy: The bounds.
        cost: What is known of service times.
        queue: Where the requests wait.
        running: What runs now.
        instances: What runs it.

    Attributes:
        displaced: Those who have left the queue to make room since somebody emptied this, and by how many seconds
            they would have been late.
    """

    def __init__(
        self,
        policy: BatchPolicy,
        *,
        cost: CostModel,
        queue: BatchQueue[W],
        running: Mapping[Worker, Run[W]],
        instances: Collection[Instance],
    ) -> None:
        self.displaced: list[tuple[W, float]] = []
        self._policy = policy
        self._cost = cost
        self._queue = queue
        self._running = running
        self._instances = instances
        self._full_rows = float(policy.max_batch_size)  # of a full batch: less, where the next one does not fit
        self._has_refused = False  # anybody, as late, since the last batch was taken
        self._look_again_s = -math.inf  # for those who will be late

    def taken(self, batch: Batch[W]) -> None:
        """Learn what batches are like."""
        self._has_refused = False
        self._look_again_s = -math.inf
        if batch.why == "full":
            self._full_rows += _SMOOTHING * (batch.rows - self._full_rows)

    def admit(self, requests: Sequence[W]) -> None:
        """Queue `requests`, which are one in parts and have just arrived.

        Where they would be late, those who wait and will be late themselves make room, see `displaced`.
        An empty queue lets everybody in. It has to: a model that has learnt that everything is late would never be
        told otherwise.

        Raises:
            PredictedLate: Its last part would end after its deadline, if what is ahead of it takes one standard
                deviation longer than the mean.
            QueueFull: It does not fit; or it has a deadline, too little is known to predict anything, and more waits
                than could be served until then.
            ValueError: As `BatchQueue.offer`.
        """
        first = requests[0]
        now_s = first.arrived_s
        try:
            if first.deadline_s != NEVER_S and self._queue.rows and not self._has_ample_time(first, len(requests)):
                self._check(first, _rows(requests), now_s)
            self._queue.offer(*requests)
        except QueueFull as full:
            over_rows = _rows(requests) + (full.waiting - full.limit if full.unit == "rows" else 0)
            full.retry_after_s = self._room_s(over_rows, now_s)
            raise

    def has_time_for(self, rows: int, *, now_s: float) -> bool:
        """Whether so many rows may be run again before what waits: not while the queue is overloaded.

        That is, where somebody was refused as late since the last batch was taken, more than half of what may wait
        does, or somebody who waits would be late for it.
        """
        if self._has_refused or self._queue.rows > self._policy.max_queue_rows / 2:
            return False
        return now_s + self._cost.service_s(rows) <= self._queue.latest_start_s()

    def others_free_s(self, now_s: float) -> float:
        """When the next engine is free besides one that is about to take a batch; only told where it matters."""
        return self._free_s(now_s, self._active() - 1) if self._queue.has_deadlines else math.inf

    def _has_ample_time(self, first: W, parts: int) -> bool:
        """Whether it will be in time even if each row were a full batch: a few comparisons in place of `_check`."""
        now_s = first.arrived_s
        quarter_s = (first.deadline_s - now_s) / 4
        full_s = self._cost.service_s(self._policy.max_batch_size)
        if not full_s or (self._queue.rows + parts) * full_s > quarter_s:
            return False
        return not self._running or all(now_s - run.taken_s <= quarter_s for run in self._running.values())

    def _check(self, first: W, rows: int, now_s: float) -> None:
        if not self._cost.knows_enough:
            limit = self._sized_cap_rows(first.deadline_s - now_s)
            if self._queue.rows + rows > limit:
                raise QueueFull(waiting=self._queue.rows, limit=limit)
            return
        late_s = self._safe_finish_s(first, rows, now_s) - first.deadline_s
        if late_s > 0:
            self._has_refused = True
            if self._make_room(first, rows, now_s):
                if not len(self._queue):
                    return
                late_s = self._safe_finish_s(first, rows, now_s) - first.deadline_s
        if late_s > 0:
            raise PredictedLate(late_s=late_s)

    def _make_room(self, first: W, rows: int, now_s: float) -> bool:
        """Whether somebody was in the way who will be late; looked for now and then, so that refusing stays cheap.

        Not for whom time alone is too short. Nor while a batch is run again in parts: what that costs those who wait
        is to end the reruns, see `has_time_for`, rather than their waiting.
        """
        active = self._active()
        free_s = self._free_s(now_s, active)
        if now_s < self._look_again_s or not all(run.is_clean for run in self._running.values()):
            return False
        if free_s + self._cost.service_s(min(rows, self._policy.max_batch_size)) > first.deadline_s:
            return False
        self._look_again_s = now_s + _LOOK_EVERY * self._cost.service_s(self._policy.max_batch_size)
        displaced = self._queue.drop_late(free_s, engines=active)
        self.displaced += displaced
        return bool(displaced)

    def _safe_finish_s(self, first: W, rows: int, now_s: float) -> float:
        """When the last of `rows` is answered that come with `first`, and one standard deviation of all until then."""
        finish_s = self._finish_s(first, rows, now_s)
        until_s, full_s = finish_s - now_s, self._cost.service_s(round(self._full_rows))
        return finish_s + math.sqrt(self._cost.noise * until_s * min(until_s, full_s))  # a part of a batch, or several

    def _finish_s(self, first: W, rows: int, now_s: float) -> float:
        """When that is by the mean."""
        service_s, full_rows, active = self._cost.service_s, self._full_rows, self._active()
        before, behind, others = self._queue.around(first)
        batches_before = math.ceil((before + rows) / full_rows) - 1
        own_rows = before + rows - batches_before * full_rows + behind
        ahead_s = batches_before * service_s(round(full_rows))
        for other in others:
            ahead_s += math.ceil(other / full_rows) * service_s(min(other, round(full_rows)))
        own_s = service_s(math.ceil(min(own_rows, full_rows)))
        return self._free_s(now_s, active) + ahead_s / active + own_s

    def _room_s(self, rows: int, now_s: float) -> float | None:
        """How long it takes until so many of the rows that wait are taken; `None` where nothing is known."""
        full_s = self._cost.service_s(round(self._full_rows))
        if not full_s:
            return None
        batches_before = math.ceil(rows / self._full_rows) - 1
        active = self._active()
        return self._free_s(now_s, active) - now_s + batches_before * full_s / active

    def _sized_cap_rows(self, budget_s: float) -> int:
        """Rows that may wait, by rule of thumb: as many batches as the budget has time for, less two; one at least."""
        full_s = self._cost.service_s(self._policy.max_batch_size)
        if not full_s:
            return self._policy.max_queue_rows
        batches = max(self._active() * (budget_s / full_s - 2), 1.0)
        return min(round(batches * self._policy.max_batch_size), self._policy.max_queue_rows)

    def _free_s(self, now_s: float, engines: int) -> float:
        """When the next of so many engines is free; `inf`: never."""
        if len(self._running) < engines:
            return now_s
        service_s = self._cost.service_s
        ends_s = [run.taken_s + service_s(run.batch.rows) for run in self._running.values()]
        return now_s + min([abs(end_s - now_s) for end_s in ends_s], default=math.inf)

    def _active(self) -> int:
        """Instances that are not stuck; one, where all are."""
        return max(sum([instance.worker is not None for instance in self._instances]), 1)


def _rows(requests: Sequence[Waiting]) -> int:
    return sum([request.rows for request in requests])
