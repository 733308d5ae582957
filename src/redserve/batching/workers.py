"""Workers run the batches of one instance: a daemon thread for a plain function, a task on the loop for an async one.

    next_step ──> run it ──> deliver ──> next_step ──> sleep until woken ──> next_step ──> ... ──> end

A thread takes its next batch without asking the loop, and hands each delivery over by one `call_soon_threadsafe`.
"""

import asyncio
import contextvars
import math
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Generic, TypeVar

from redserve.batching.attempts import AsyncFunction, Call, Delivery, SyncFunction, attempts
from redserve.batching.dispatcher import Dispatcher
from redserve.batching.request import Request
from redserve.batching.run import Instance, Run

P = TypeVar("P")
R = TypeVar("R")

_SHORTEST_SLEEP_S = 1e-6  # rounding must not make a delay end just before it is due, again and again


@dataclass(frozen=True, kw_only=True)
class Home(Generic[P, R]):
    """Where workers belong: what their batcher lends them. The callbacks are called on the loop."""

    loop: asyncio.AbstractEventLoop
    dispatcher: Dispatcher[Request[P, R]]
    clock: Callable[[], float]
    max_reruns: int
    deliver: Callable[[Delivery[P, R]], None]
    ended: Callable[[], None]
    broken: Callable[[BaseException], None]
    give_up: Callable[[], None]

    def attempts(
        self, run: Run[Request[P, R]], post: Callable[[Delivery[P, R]], None]
    ) -> Generator[list[P], Call, None]:
        """The calls of one run."""
        return attempts(
            run, post, max_reruns=self.max_reruns, has_time_for=self.dispatcher.has_time_for, clock=self.clock
        )


class ThreadWorker(Generic[P, R]):
    """Calls a plain function in a daemon thread of its own; sleeps on a raw lock, woken by whoever has work.

    Args:
        home: What the batcher lends it.
        instance: Its own.
        function: To call.
        name: Of the thread.
        first: What it has to run before it asks for more; taken over from another worker.
        relieve: Called after each batch with this and the seconds of its last call; whether another one goes on.
    """

    def __init__(
        self,
        home: Home[P, R],
        instance: Instance,
        function: SyncFunction[P, R],
        *,
        name: str,
        first: Run[Request[P, R]] | None = None,
        relieve: Callable[["ThreadWorker[P, R]", float], bool] | None = None,
    ) -> None:
        self.instance = instance
        self.has_lingered = False
        self._first = first
        self._relieve = relieve
        self._took_s = 0.0
        self._home = home
        self._function = function
        self._name = name
        self._awake = threading.Lock()
        self._awake.acquire()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        """See `Worker`."""
        self._thread.start()

    def wake(self) -> None:
        """See `Worker`."""
        self._awake.release()

    def another(self) -> "ThreadWorker[P, R]":
        """See `Worker`."""
        return ThreadWorker(self._home, self.instance, self._function, name=self._name, relieve=self._relieve)

    def cut(self) -> None:
        """Nothing stops a thread; what its function returns will be ignored."""

    def dismiss(self) -> None:
        """See `Worker`."""
        self.wake()

    def _serve(self) -> None:
        try:
            if self._first is not None:
                self._run(self._first)
                self._first = None
            while (step := self._home.dispatcher.next_step(self)) is not None:
                if not isinstance(step, Run):
                    self._sleep(step)
                    continue
                self._run(step)
                if self._relieve is not None and self._relieve(self, self._took_s):
                    return
        except BaseException as error:  # of this room, or of the hash of a group: nobody may wait for a dead thread
            self.post(self._home.broken, error)
        else:
            self.post(self._home.ended)

    def _sleep(self, until_s: float) -> None:
        if until_s == math.inf:
            self._awake.acquire()
            return
        timeout_s = min(max(until_s - self._home.clock(), 0.0), threading.TIMEOUT_MAX)
        if not self._awake.acquire(timeout=timeout_s) and not self._home.dispatcher.stop_waiting(self):
            self._awake.acquire()  # somebody found it idle and is about to wake it

    def _run(self, run: Run[Request[P, R]]) -> None:
        steps = self._home.attempts(run, self._deliver)
        payloads = next(steps, None)
        while payloads is not None:
            call: Call
            began_s = self._home.clock()
            try:
                call = self._function(payloads), None
            except BaseException as error:  # a SystemExit, too, must not leave the callers without an answer
                call = None, error
            self._took_s = self._home.clock() - began_s
            try:
                payloads = steps.send(call)
            except StopIteration:
                payloads = None

    def _deliver(self, delivery: Delivery[P, R]) -> None:
        self.post(self._home.deliver, delivery)

    def post(self, callback: Callable[..., None], *args: object) -> None:
        """Have it called on the loop."""
        try:
            self._home.loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop is closed: nobody waits for an answer any more
            for worker in self._home.dispatcher.stop():
                worker.wake()


class TaskWorker(Generic[P, R]):
    """Awaits an async function in a task, which lives as long as there is work."""

    def __init__(self, home: Home[P, R], instance: Instance, function: AsyncFunction[P, R], *, name: str) -> None:
        self.instance = instance
        self.has_lingered = False
        self._home = home
        self._function = function
        self._name = name
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """See `Worker`."""
        self.wake()

    def wake(self) -> None:
        """See `Worker`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # An empty context, as a thread has: a batch belongs to none of its requests.
        self._task = self._home.loop.create_task(self._serve(), name=self._name, context=contextvars.Context())

    def another(self) -> "TaskWorker[P, R]":
        """See `Worker`."""
        return TaskWorker(self._home, self.instance, self._function, name=self._name)

    def cut(self) -> None:
        """See `Worker`: the task is cancelled; a function that ignores that is left to itself."""
        if self._task is not None:
            self._task.cancel()

    def dismiss(self) -> None:
        """See `Worker`: no task sleeps."""
        if self._timer is not None:
            self._timer.cancel()

    async def _serve(self) -> None:
        while (step := self._home.dispatcher.next_step(self)) is not None:
            if not isinstance(step, Run):
                if step != math.inf:
                    delay_s = max(step - self._home.clock(), _SHORTEST_SLEEP_S)
                    self._timer = self._home.loop.call_later(delay_s, self._slept)
                return
            try:
                await self._run(step)
            except BaseException:  # the whole loop is ending: its tasks are cancelled, or somebody wants to exit
                self._home.give_up()
                raise
        self._home.ended()

    def _slept(self) -> None:
        if self._home.dispatcher.stop_waiting(self):
            self.wake()

    async def _run(self, run: Run[Request[P, R]]) -> None:
        task = asyncio.current_task()
        steps = self._home.attempts(run, self._home.deliver)
        payloads = next(steps, None)
        while payloads is not None:
            call: Call
            try:
                call = await self._function(payloads), None
            except asyncio.CancelledError as error:
                if task is not None and task.cancelling() and not run.is_cut:
                    raise
                call = None, error
            except BaseException as error:
                call = None, error
            try:
                payloads = steps.send(call)
            except StopIteration:
                payloads = None
            if isinstance(call[1], (KeyboardInterrupt, SystemExit)):
                raise call[1]
        try:
            await asyncio.sleep(0)  # a function that never waits must not keep the loop for all that is queued
        except asyncio.CancelledError:
            if not run.is_cut:
                raise
        while run.is_cut and task is not None and task.cancelling():
            task.uncancel()
