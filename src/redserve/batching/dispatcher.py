"""Who runs what: the queue and its workers behind the one lock of the room.

    offer, cancel (event loop) ──> BatchQueue ──> next_step (a worker: what now?) ──> Run | sleep until | None: end
    to_wake (event loop, and a worker that leaves work behind) ──> the idle worker to wake
    expire (event loop) ──> those whose deadline passed while they were queued
    overdue, cut (event loop) ──> a hung run is given up, its worker replaced

A worker asks for its next step as late as it can, so rows join until a worker is free to run them. No step blocks, and
nothing foreign is called under the lock but the hash of a group.
"""

import math
from collections.abc import Callable
from threading import Lock
from typing import Final, Generic, TypeVar

from redserve.batching.admission import Admission
from redserve.batching.batch import Batch
from redserve.batching.batch_queue import BatchQueue
from redserve.batching.cost import CostModel
from redserve.batching.linger import LingerGate
from redserve.batching.patience import NEVER_QUIET_S
from redserve.batching.policy import BatchPolicy
from redserve.batching.run import Instance, Run, Worker
from redserve.batching.waiting import Waiting

W = TypeVar("W", bound=Waiting)

MAX_STUCK: Final = 3
"""Hung workers of one instance that are replaced; when one more hangs, the instance rests until one comes back."""


class Dispatcher(Generic[W]):
    """Hands batches to workers; safe to use from any thread.

    Args:
        policy: When a batch closes, and when a request is turned away.
        clock: Seconds that only grow.
        turn_away: Called, by whoever asked for the step and with no lock held, with those that can no longer be
            answered in time; they have left the queue.
        displace: Called, by whoever offers and with no lock held, with those that made room for others, and by how
            many seconds they would have been late; they have left the queue.
        gate: Whether a worker lingers; `None`: never.
        leave_waiting: Where given, the one worker there is takes nothing after a run until `to_wake` is asked, or for
            `NEVER_QUIET_S`, if what waits can wait; called by that worker, with no lock held, when it leaves rows.
    """

    def __init__(
        self,
        policy: BatchPolicy,
        *,
        clock: Callable[[], float],
        turn_away: Callable[[list[W]], None],
        displace: Callable[[list[tuple[W, float]]], None],
        cost: CostModel | None = None,
        gate: LingerGate | None = None,
        leave_waiting: Callable[[], None] | None = None,
    ) -> None:
        self.instances: list[Instance] = []
        self._clock = clock
        self._turn_away = turn_away
        self._displace = displace
        self._sizes = policy.batch_sizes
        self._lock = Lock()
        self._cost = cost or CostModel({})
        self._queue: BatchQueue[W] = BatchQueue(policy, self._cost)
        self._gate = gate
        self._leave_waiting = leave_waiting
        self._running: dict[Worker, Run[W]] = {}
        self._idle: dict[Worker, float] = {}  # until when, at the latest
        self._admission: Admission[W] = Admission(
            policy, cost=self._cost, queue=self._queue, running=self._running, instances=self.instances
        )
        self._lingering: dict[Worker, None] = {}
        self._is_draining = False
        self._is_stopped = False

    @property
    def queued_rows(self) -> int:
        """Rows that wait now."""
        return self._queue.rows

    @property
    def running_rows(self) -> int:
        """Rows that run now."""
        with self._lock:
            return sum(run.batch.rows for run in self._running.values())

    @property
    def has_workers(self) -> bool:
        """Whether any worker is left that is not stuck."""
        with self._lock:
            return any(instance.worker is not None for instance in self.instances)

    def offer(self, *requests: W) -> None:
        """See `Admission.admit`; the caller arranges for `to_wake` to be asked."""
        try:
            with self._lock:
                self._admission.admit(requests)
                if self._gate is not None:
                    self._gate.arrived(now_s=requests[0].arrived_s)
        finally:
            if self._admission.displaced:
                displaced, self._admission.displaced = self._admission.displaced, []
                self._displace(displaced)

    def cancel(self, request: W) -> bool:
        """See `BatchQueue.cancel`."""
        with self._lock:
            return self._queue.cancel(request)

    def expire(self, *, now_s: float) -> tuple[list[W], float]:
        """Those whose deadline has passed while they were queued, and the next deadline, or `inf`."""
        with self._lock:
            next_s = self._queue.expire(now_s=now_s)
            return self._queue.pop_hopeless(), next_s

    def clear(self) -> list[W]:
        """See `BatchQueue.clear`."""
        with self._lock:
            return self._queue.clear()

    def can_wait(self) -> bool:
        """Whether the next batch may begin `NEVER_QUIET_S` later; see `BatchQueue.can_wait`."""
        with self._lock:
            return self._queue.can_wait(self._clock() + NEVER_QUIET_S)

    def to_wake(self) -> Worker | None:
        """The idle worker that has to ask for its next step now; it counts as idle no more."""
        with self._lock:
            return self._to_wake(self._clock())

    def next_step(self, worker: Worker) -> Run[W] | float | None:
        """End what `worker` ran and tell it what to do now.

        Returns:
            A run; or, when there is none, until when to sleep (`inf`: until woken); or `None`: end for good.
        """
        with self._lock:
            now_s = self._clock()
            step = self._next_step(worker, now_s)
            other = self._to_wake(now_s) if isinstance(step, Run) else None
            hopeless = self._queue.pop_hopeless()
        if other is not None:
            other.wake()
        if hopeless:
            self._turn_away(hopeless)
        if self._leave_waiting is not None and worker.has_lingered:
            self._leave_waiting()
        return step

    def end(self, worker: Worker) -> None:
        """End what `worker` ran; it will ask for its next step later."""
        with self._lock:
            self._end(worker, self._clock())

    def replace(self, worker: Worker, successor: Worker) -> bool:
        """From now on `successor`, which is not started yet, does what `worker` did, and has what it runs.

        Returns:
            Whether `worker` was still the one of its instance, and will be asked nothing more.
        """
        with self._lock:
            if worker.instance.worker is not worker or self._is_stopped:
                return False
            worker.instance.worker = successor
            run = self._running.pop(worker, None)
            if run is not None:
                run.worker = successor
                self._running[successor] = run
            return True

    def stop_waiting(self, worker: Worker) -> bool:
        """`worker` has slept long enough. `False`: too late, `wake` is being called."""
        with self._lock:
            if worker in self._lingering:
                del self._lingering[worker]
                return True
            return self._idle.pop(worker, None) is not None

    def drain(self) -> list[Worker]:
        """From now on delays are over, and a worker that finds the queue empty ends; returns whom to wake."""
        with self._lock:
            self._is_draining = True
            return self._wake_all()

    def stop(self) -> list[Worker]:
        """From now on every worker ends at its next step; returns whom to wake."""
        with self._lock:
            self._is_stopped = True
            return self._wake_all()

    def overdue(self, *, since_s: float) -> tuple[list[Run[W]], float]:
        """The runs called at or before `since_s`, and when the oldest of the others was called.

        The second is `inf` when nothing else runs, and not later than now while rows are queued.
        """
        with self._lock:
            late = [run for run in self._running.values() if run.is_called and run.called_s <= since_s]
            others = [run.called_s for run in self._running.values() if run not in late]
            if self._queue.rows:
                others.append(self._clock())
            return late, min(others, default=math.inf)

    def has_time_for(self, rows: int) -> bool:
        """Whether so many rows may be run again before what waits; see `Admission.has_time_for`."""
        with self._lock:
            return self._admission.has_time_for(rows, now_s=self._clock())

    def running(self) -> list[Run[W]]:
        """What runs now."""
        with self._lock:
            return list(self._running.values())

    def cut(self, run: Run[W], replacement: Worker | None) -> bool:
        """Give `run` up; its worker is stuck until it asks for its next step.

        Args:
            run: To give up.
            replacement: To be started if the instance takes it as its worker: not beyond `MAX_STUCK`.

        Returns:
            Whether it still ran.
        """
        with self._lock:
            if self._running.pop(run.worker, None) is not run:
                return False
            run.is_cut = True
            instance = run.worker.instance
            instance.worker = replacement if len(instance.stuck) < MAX_STUCK else None
            instance.stuck.add(run.worker)
            return True

    def _next_step(self, worker: Worker, now_s: float) -> Run[W] | float | None:
        instance = worker.instance
        has_lingered, worker.has_lingered = worker.has_lingered, False
        if worker in instance.stuck:
            instance.stuck.discard(worker)
            if instance.worker is not None:
                return None
            instance.worker = worker
        ended = self._end(worker, now_s)
        if self._is_stopped or (self._is_draining and not self._queue.rows):
            instance.worker = None
            return None
        if ended is not None and self._gate is not None:
            linger_s = self._linger_s(self._gate, ended, now_s)
            if linger_s:
                worker.has_lingered = True
                self._lingering[worker] = None
                return now_s + linger_s
        if self._leave_waiting is not None and ended is not None and self._may_leave_waiting(now_s):
            worker.has_lingered = True
            self._lingering[worker] = None
            return now_s + NEVER_QUIET_S

        batch = self._queue.take(
            now_s=now_s, is_draining=self._is_draining, others_free_s=self._admission.others_free_s(now_s)
        )
        if batch is None:
            if self._is_draining:  # the rest has expired
                instance.worker = None
                return None
            self._idle[worker] = due_s = self._queue.due_s()
            return due_s
        if has_lingered and batch.why == "idle":
            batch = Batch(batch.requests, batch.rows, "linger")
        self._admission.taken(batch)
        run = self._running[worker] = Run(batch, worker, taken_s=now_s, sizes=self._sizes)
        return run

    def _end(self, worker: Worker, now_s: float) -> Run[W] | None:
        ended = self._running.pop(worker, None)
        if ended is not None and ended.is_clean:
            self._cost.observe(rows=ended.batch.rows, seconds=now_s - ended.taken_s)
        return ended

    def _may_leave_waiting(self, now_s: float) -> bool:
        return self._queue.rows > 0 and not self._is_draining and self._queue.can_wait(now_s + NEVER_QUIET_S)

    def _linger_s(self, gate: LingerGate, ended: Run[W], now_s: float) -> float:
        """What the gate says, unless another worker is free to run what waits, or waiting gains nothing more."""
        gate.completed(rows=ended.batch.rows, seconds=now_s - ended.taken_s, now_s=now_s)
        if self._idle or self._is_draining or self._queue.is_full:
            return 0.0
        return gate.linger_s(answered=len(ended.batch.requests), waiting=len(self._queue))

    def _to_wake(self, now_s: float) -> Worker | None:
        if not self._queue.rows:
            return None
        if not self._idle:
            if self._lingering and (self._leave_waiting is not None or self._queue.is_full):
                return self._lingering.popitem()[0]
            return None
        due_s = self._queue.due_s()
        if due_s > now_s and any(until_s <= due_s for until_s in self._idle.values()):
            return None  # one of them sleeps only as long
        return self._idle.popitem()[0]

    def _wake_all(self) -> list[Worker]:
        workers = [*self._idle, *self._lingering]
        self._idle.clear()
        self._lingering.clear()
        return workers
