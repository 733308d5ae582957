"""Crew: the workers of one batcher as the event loop sees them.

flush ──> wakes a sleeping worker
deliver (once a run) ──> the observer, then the answers
cut ──> a hung run is answered `RunTimeout`, and another worker goes on with the queue
drain ──> what is queued is run, then the workers end
"""

import asyncio
import contextlib
import inspect
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from redserve.batching.attempts import Delivery
from redserve.batching.cost import CostModel
from redserve.batching.dispatcher import Dispatcher
from redserve.batching.expiry import Expiry
from redserve.batching.inline import InlineWorker
from redserve.batching.linger import LingerGate
from redserve.batching.observer import GuardedRecorder
from redserve.batching.patience import GiveWay, Patience, UntilQuiet
from redserve.batching.policy import BatchPolicy
from redserve.batching.request import Answer, Request
from redserve.batching.run import Instance, Run, Worker
from redserve.batching.turns import Turns
from redserve.batching.watchdog import Watchdog
from redserve.batching.workers import Home, TaskWorker, ThreadWorker
from redserve.errors import DeadlineExpired, PredictedLate, RedserveError, RunTimeout, ShuttingDown

P = TypeVar("P")
R = TypeVar("R")

_log = logging.getLogger("redserve.batching")


class Crew(Generic[P, R]):
    """Runs what its `dispatcher` is offered, and answers it; every method is called on the event loop.

    Args:
        functions: All plain or all async; one instance each.
        policy: As for the batcher.
        name: As for the batcher.
        recorder: Is told of each run.
        max_run_s: Longest that one call may take, or `None`.
        inline_below_s: As for the batcher.
        until_quiet: As for the batcher.
        service_times_s: As for the batcher.
        clock: As for the batcher.
    """

    def __init__(
        self,
        functions: Sequence[Callable[[list[P]], Any]],
        *,
        policy: BatchPolicy,
        name: str,
        recorder: GuardedRecorder,
        max_run_s: float | None,
        inline_below_s: float | None,
        until_quiet: bool,
        service_times_s: Mapping[int, float],
        clock: Callable[[], float],
    ) -> None:
        are_async = {is_async(function) for function in functions}
        if len(are_async) != 1 or not all(map(callable, functions)):
            raise ValueError("give one function or several, all plain or all async")
        if max_run_s is not None and not max_run_s > 0:
            raise ValueError(f"max_run_s must be positive, got {max_run_s}")
        is_threaded = are_async == {False}
        if inline_below_s is not None and (len(functions) > 1 or not is_threaded):
            raise ValueError("only one plain function can run inline")
        until_quiet = until_quiet and is_threaded and inline_below_s is None and len(functions) == 1
        gate = LingerGate() if policy.linger and is_threaded and inline_below_s is None and not until_quiet else None
        cost = CostModel(service_times_s, policy.batch_sizes)
        self.dispatcher: Dispatcher[Request[P, R]] = Dispatcher(
            policy,
            clock=clock,
            turn_away=self._turn_away_soon,
            displace=self._refuse_soon,
            cost=cost,
            gate=gate,
            leave_waiting=self._arm_soon if until_quiet else None,
        )
        patience: Patience | None = None
        if until_quiet:
            patience = UntilQuiet(self.dispatcher.can_wait, clock=clock)
        elif inline_below_s is not None and _gives_way(policy):
            patience = GiveWay(self._rows_on_the_loop, self.dispatcher.can_wait, clock=clock, give_way=os.sched_yield)
        loop = asyncio.get_running_loop()
        self.turns = Turns(loop, self.flush, patience=patience)
        self.is_closing = False
        self._is_broken = False
        self._name = name
        self._recorder = recorder
        self._clock = clock
        self._max_run_s = math.inf if max_run_s is None else max_run_s
        self._watchdog: Watchdog[Request[P, R]] | None = None
        if max_run_s is not None:
            self._watchdog = Watchdog(self.dispatcher, limit_s=max_run_s, cut=self._cut_overdue, clock=clock)
        self.expiry: Expiry[Request[P, R]] = Expiry(self.dispatcher, turn_away=self._turn_away, clock=clock)
        self.all_ended = asyncio.Event()
        self._home: Home[P, R] = Home(
            loop=loop,
            dispatcher=self.dispatcher,
            clock=clock,
            max_reruns=policy.max_reruns,
            deliver=self._deliver,
            ended=self._worker_ended,
            broken=self._worker_broken,
            give_up=self.give_up,
        )
        worker_type: Callable[..., Worker] = ThreadWorker if is_threaded else TaskWorker
        if inline_below_s is not None:
            worker_type = partial(InlineWorker, limit_s=inline_below_s)
        self._functions = {Instance(): function for function in functions}
        self.dispatcher.instances.extend(self._functions)
        for instance, function in self._functions.items():
            instance.worker = worker = worker_type(self._home, instance, function, name=name)
            worker.start()

    @property
    def is_stalled(self) -> bool:
        """Whether every instance hangs in calls that were given up, or the batcher itself is broken."""
        return self._is_broken or (not self.is_closing and not self.dispatcher.has_workers)

    @property
    def is_inline(self) -> bool:
        """Whether the function is called on the loop."""
        return any(isinstance(instance.worker, InlineWorker) for instance in self.dispatcher.instances)

    def flush(self) -> None:
        """Something has been offered."""
        worker = self.dispatcher.to_wake()
        if worker is not None:
            worker.wake()
        if self._watchdog is not None:
            self._watchdog.watch()
        if self.is_stalled:
            self._fail_queued(RunTimeout(self._max_run_s))

    def drain(self) -> None:
        """Begin to close: what is queued is run; the caller offers nothing any more."""
        self.is_closing = True
        for worker in self.dispatcher.drain():
            worker.wake()

    def abandon(self) -> None:
        """See `Batcher.abandon`."""
        self.is_closing = True
        for worker in self.dispatcher.stop():
            worker.dismiss()
        self._recorder.close()

    def _rows_on_the_loop(self) -> int:
        """That wait for a batch on the loop."""
        return self.dispatcher.queued_rows if self.is_inline else 0

    def _deliver(self, delivery: Delivery[P, R]) -> None:
        run = delivery.run
        if run.is_cut:
            return
        self._recorder.record(delivery.report)
        rows, taken_s, compute_s = delivery.report.rows, run.taken_s, delivery.ended_s - run.taken_s
        for request, outcome in zip(delivery.requests, delivery.outcomes, strict=True):
            if isinstance(outcome, RedserveError):
                self._settle(request, outcome, run, batch_rows=rows, ended_s=delivery.ended_s)
            else:
                request.settle(Answer(outcome, None, taken_s - request.arrived_s, compute_s, rows))

    def _settle(
        self,
        request: Request[P, R],
        error: RedserveError,
        run: Run[Request[P, R]],
        *,
        batch_rows: int,
        ended_s: float,
    ) -> None:
        request.settle(Answer(None, error, run.taken_s - request.arrived_s, ended_s - run.taken_s, batch_rows))

    def _cut_overdue(self, run: Run[Request[P, R]]) -> None:
        """Answer a hung batch, and let another worker go on with the queue."""
        replacement = run.worker.another()
        if not self._cut(run, RunTimeout(self._max_run_s), replacement):
            return
        _log.warning("batch cut off", extra={"batcher": self._name, "rows": run.batch.rows})
        if run.worker.instance.worker is replacement:
            replacement.start()
        if not self.dispatcher.has_workers:
            _log.error("every instance hangs", extra={"batcher": self._name})
            self._fail_queued(RunTimeout(self._max_run_s))
            self._worker_ended()

    def _cut(self, run: Run[Request[P, R]], error: RedserveError, replacement: Worker | None) -> bool:
        if not self.dispatcher.cut(run, replacement):
            return False
        ended_s = self._clock()
        if run.is_called:
            self._recorder.record(run.call_ended(now_s=ended_s, has_failed=True))
        self._interrupt(run)
        for request in run.batch.requests:
            self._settle(request, error, run, batch_rows=run.batch.rows, ended_s=ended_s)
        return True

    def _interrupt(self, run: Run[Request[P, R]]) -> None:
        """Tell the function that nobody waits for it any more."""
        run.worker.cut()
        interrupt = getattr(self._functions[run.worker.instance], "interrupt", None)
        if interrupt is not None:
            try:
                interrupt()
            except Exception:
                _log.exception("interrupt failed", extra={"batcher": self._name})

    def _arm_soon(self) -> None:
        """Called by a worker, which is a thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for an answer any more
            self._home.loop.call_soon_threadsafe(self.turns.arm)

    def _turn_away_soon(self, requests: list[Request[P, R]]) -> None:
        """Called by a worker, which may be a thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for an answer any more
            self._home.loop.call_soon_threadsafe(self._turn_away, requests)

    def _turn_away(self, requests: list[Request[P, R]]) -> None:
        """Answer those that left the queue because they can no longer be answered in time."""
        now_s = self._clock()
        for request in requests:
            request.settle(Answer(None, DeadlineExpired(), now_s - request.arrived_s, 0.0, 0))

    def _refuse_soon(self, displaced: list[tuple[Request[P, R], float]]) -> None:
        """Called while somebody is being let in."""
        self._home.loop.call_soon(self._refuse, displaced)

    def _refuse(self, displaced: list[tuple[Request[P, R], float]]) -> None:
        """Answer those that made room for others."""
        now_s = self._clock()
        for request, late_s in displaced:
            request.settle(Answer(None, PredictedLate(late_s=late_s), now_s - request.arrived_s, 0.0, 0))

    def _fail_queued(self, error: RedserveError) -> None:
        now_s = self._clock()
        for request in self.dispatcher.clear():
            request.settle(Answer(None, error, now_s - request.arrived_s, 0.0, 0))

    def give_up(self) -> None:
        """Answer everybody now."""
        self.is_closing = True
        for worker in self.dispatcher.stop():
            worker.dismiss()
        self._fail_queued(ShuttingDown())
        for run in self.dispatcher.running():
            self._cut(run, ShuttingDown("shut down while the batch ran"), None)
        self.all_ended.set()
        self.clean_up()

    def _worker_broken(self, error: BaseException) -> None:
        _log.critical("a worker has died, nothing runs any more", extra={"batcher": self._name}, exc_info=error)
        self._is_broken = True
        self.give_up()

    def _worker_ended(self) -> None:
        if self.is_closing and not self.dispatcher.has_workers:
            self.all_ended.set()

    def clean_up(self) -> None:
        if self._watchdog is not None:
            self._watchdog.close()
        self.expiry.close()
        self._recorder.close()


def is_async(function: Callable[..., object]) -> bool:
    """Whether calling `function`, which may be an object with an async `__call__`, gives an awaitable."""
    own_call = getattr(function, "__call__", None)  # noqa: B004  # that of the type does not tell, where it is compiled
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(own_call)


def _gives_way(policy: BatchPolicy) -> bool:
    """Whether batches on the loop do: one that waits for its time need not, and some systems have no such call."""
    return policy.linger and not policy.max_queue_delay_s and hasattr(os, "sched_yield")
