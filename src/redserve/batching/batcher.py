"""Batcher: what callers see; its intake queues, and its crew does the rest."""

import asyncio
import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from operator import index
from types import TracebackType
from typing import Generic, Self, SupportsIndex, TypeVar, cast

from redserve.batching.attempts import AsyncFunction, SyncFunction
from redserve.batching.crew import Crew
from redserve.batching.intake import Intake
from redserve.batching.observer import BatchObserver, GuardedRecorder
from redserve.batching.policy import BatchPolicy
from redserve.batching.request import Answer, Ticket

P = TypeVar("P")
R = TypeVar("R")


class Batcher(Generic[P, R]):
    """Turns many requests into few calls of a function; see the room's docstring for the contract.

    Belongs to the event loop that runs while it is made: every method is called there. Close it with `aclose`, or use
    it as an async context manager.

    Args:
        run: The function, called with a list of payloads; returns one result for each, in order, and a result that is
            an `Exception` fails that request alone. A plain function runs in a daemon thread of its own, an async one
            as a task. Or a sequence of functions: instances that run side by side. One that hangs past `max_run_s`
            has its method `interrupt()` called, where it has one, and may then be called from another thread while
            the hung call is still in it.
        policy: When a batch closes, and when a request is turned away.
        name: Of the model or the function, for the observer and the threads.
        version: Of the model, for the observer.
        observer: Is told of each run.
        max_run_s: Longest that one call may take; `None` waits for ever.
        inline_below_s: Call the one plain function on the event loop itself, without a thread: its calls take less, by
            what is known. For calls of tens of microseconds, which a hop to a thread would double. Once they take four
            times as long, smoothed, a thread makes them, for 10 s at least. One that hangs blocks the loop until
            `interrupt()` ends it, which is called after a quarter of a second; a thread then makes it again, and those
            that follow, for 160 s at least. `None`: never inline.
        until_quiet: Whether a batch starts only once a turn of the event loop has brought nothing new, 5 ms and what is
            left of a turn at most, unless one is full or a deadline would be missed. For one plain function that
            computes on all of the few cores that the loop has too; without effect for any other, or one that is or
            was called inline.
        split: Cuts a payload of more than `max_batch_size` rows into parts `(payload, rows)` of at most that many.
        join: Makes the one result of the results of such parts, in order.
        service_times_s: What is known of the seconds that a call takes, by rows; measured at warm-up, say. The
            batcher learns them while it runs, but predicts from the first request on where it is told.
        clock: Seconds that only grow, that deadlines are told in; tests bring their own.

    Attributes:
        loop: The event loop.
        intake: Its `submit` takes the same as ours, of Python's own numbers and in this order.

    Raises:
        ValueError: No function, or plain and async ones mixed, or a `max_run_s` that is not positive, or
            `inline_below_s` for more than one plain function.
        RuntimeError: No event loop is running.
    """

    def __init__(
        self,
        run: SyncFunction[P, R] | AsyncFunction[P, R] | Sequence[SyncFunction[P, R]] | Sequence[AsyncFunction[P, R]],
        *,
        policy: BatchPolicy | None = None,
        name: str = "batcher",
        version: str = "",
        observer: BatchObserver | None = None,
        max_run_s: float | None = 60.0,
        inline_below_s: float | None = None,
        until_quiet: bool = False,
        split: Callable[[P, int], list[tuple[P, int]]] | None = None,
        join: Callable[[list[R]], R] | None = None,
        service_times_s: Mapping[int, float] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        policy = policy or BatchPolicy()
        self._crew: Crew[P, R] = Crew(
            list(run) if isinstance(run, Sequence) else [run],
            policy=policy,
            name=name,
            recorder=GuardedRecorder(
                observer, name=name, version=version, depth=lambda: self.queued_rows, limit=policy.max_queue_rows
            ),
            max_run_s=max_run_s,
            inline_below_s=inline_below_s,
            until_quiet=until_quiet,
            service_times_s=service_times_s or {},
            clock=clock,
        )
        self._dispatcher = self._crew.dispatcher
        self.intake: Intake[P, R] = Intake(self._crew, policy, split=split, join=join, clock=clock)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def queued_rows(self) -> int:
        """Rows that wait now; readable from any thread."""
        return self._dispatcher.queued_rows

    @property
    def running_rows(self) -> int:
        """Rows that run now; readable from any thread."""
        return self._dispatcher.running_rows

    @property
    def is_stalled(self) -> bool:
        """Whether every instance hangs in calls that were given up, so that requests fail at once."""
        return self._crew.is_stalled

    @property
    def is_inline(self) -> bool:
        """Whether the function is called on the event loop, see `inline_below_s`."""
        return self._crew.is_inline

    async def __call__(
        self,
        payload: P,
        *,
        rows: SupportsIndex = 1,
        group: Hashable = None,
        size_bytes: SupportsIndex = 0,
        deadline_s: float = math.inf,
    ) -> R:
        """Submit `payload` and wait for its result; cancelling this cancels the request.

        Raises:
            QueueFull: It does not fit beside what waits.
            PredictedLate: The answer would come after its deadline.
            DeadlineExpired: The deadline has passed, or passed before it could run.
            ShuttingDown: The batcher is closed, or closed before the request could run.
            ModelError: The function failed on it; what it raised is the cause.
            ValueError: As `submit`.
        """
        future: asyncio.Future[R] = self.loop.create_future()

        def settle(answer: Answer[R]) -> None:
            if future.done():
                return
            if answer.error is not None:
                future.set_exception(answer.error)
            else:
                future.set_result(cast(R, answer.result))

        ticket = self.submit(payload, settle, rows=rows, group=group, size_bytes=size_bytes, deadline_s=deadline_s)
        try:
            return await future
        finally:
            ticket.cancel()

    def submit(
        self,
        payload: P,
        answer: Callable[[Answer[R]], None],
        *,
        rows: SupportsIndex = 1,
        group: Hashable = None,
        size_bytes: SupportsIndex = 0,
        deadline_s: float = math.inf,
    ) -> Ticket:
        """Queue `payload`.

        Args:
            payload: For the function.
            answer: Called exactly once, on the event loop, never before this returns; never after the ticket was
                cancelled.
            rows: How many rows of a batch the payload fills; an integer of numpy is one, too.
            group: Only requests of equal groups share a batch.
            size_bytes: What the payload holds in memory, counted against `max_queue_bytes`.
            deadline_s: When the answer is due, by the batcher's clock; `inf`: `slo_s` from now, or whenever it comes.
                Until then the request either runs or is answered `DeadlineExpired`. What runs is answered even late.

        Raises:
            QueueFull: It does not fit beside what waits. An empty queue takes a request of any size.
            PredictedLate: The answer would come after its deadline, by all that is known. Never with an empty queue.
            DeadlineExpired: The deadline has passed.
            ShuttingDown: The batcher is closed.
            ValueError: No rows, or more than `max_batch_size` where no `split` was given.
        """
        row_count = rows if isinstance(rows, int) else index(rows)
        byte_count = size_bytes if isinstance(size_bytes, int) else index(size_bytes)
        return self.intake.submit(payload, answer, row_count, group, byte_count, deadline_s)

    async def aclose(self, *, grace_s: float | None = None) -> None:
        """Refuse new requests, run those that are queued, end the workers.

        Args:
            grace_s: After so long what is still queued or running is answered `ShuttingDown`; `None` waits for all.
        """
        crew = self._crew
        crew.drain()
        if self._dispatcher.has_workers:
            try:
                async with asyncio.timeout(grace_s):
                    await crew.all_ended.wait()
            except TimeoutError:
                crew.give_up()
        else:
            await asyncio.sleep(0)  # what the last of them posted is delivered in this turn of the loop
        crew.clean_up()

    def abandon(self) -> None:
        """End the workers without answering anybody: for a batcher whose loop is closed. Callable from any thread."""
        self._crew.abandon()
