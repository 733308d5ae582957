"""A worker that calls a plain function on the event loop itself, for calls that are shorter than a hop to a thread.

    flush ──> next_step ──> run it, deliver ──> more queued? in the next turn of the loop ──> ... ──> idle
                               ├── grown: a thread stands in
                               └── hung: interrupted by the guard, and done again by a thread, which stands in

Two switches of threads cost a batch more than a small model does. But a call on the loop keeps every connection
waiting, so whatever is no longer short goes to a thread. It may have grown, or hung, only because other processes had
the cores: after a while, and once calls are short in the thread, they are made on the loop again.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from redserve.batching.attempts import Call, SyncFunction
from redserve.batching.request import Request
from redserve.batching.run import Instance, Run
from redserve.batching.workers import Home, ThreadWorker

P = TypeVar("P")
R = TypeVar("R")

_SMOOTHING: Final = 0.05  # weight of the newest call
_GROWN: Final = 4.0  # times the limit: under load, with cold caches, a call takes several times what it took at warm-up
_OUTLIER: Final = 10.0  # times the limit; more counts for that: the machine stalls now and then, which is no growth
_AWAY_S: Final = 10.0  # for so long, at least, calls that have grown are made by a thread; twice as long each time
_LONGEST_AWAY_S: Final = 160.0  # and those of which one has hung
_LOOK_S: Final = 0.125
_LOOKS_AT_A_HANG: Final = 2  # besides the first
_LOOKS_WITHOUT_WORK: Final = 16


class InlineWorker(Generic[P, R]):
    """Calls a plain function on the loop while its calls are short; the only worker of its batcher.

    Args:
        home: What the batcher lends it.
        instance: Its own.
        function: To call; where it has a method `interrupt()`, that ends a call in progress soon.
        name: Of the thread that stands in.
        limit_s: What a call may take when it is begun with; once it usually takes four times as long, it has grown.
    """

    def __init__(
        self, home: Home[P, R], instance: Instance, function: SyncFunction[P, R], *, name: str, limit_s: float
    ) -> None:
        self.instance = instance
        self.has_lingered = False
        self._home = home
        self._function = function
        self._name = name
        self._limit_s = limit_s
        self._usual_s = 0.0
        self._since_s = 0.0
        self._away_s = 0.0
        self._until_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._guard = _Guard(getattr(function, "interrupt", lambda: None))

    def start(self) -> None:
        """See `Worker`."""
        self._since_s = self._home.clock()
        self._usual_s = 0.0
        self.wake()

    def wake(self) -> None:
        """See `Worker`: on the loop, since there is no other worker that would call it; runs a batch at once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            step = self._home.dispatcher.next_step(self)
            if step is None:
                self._home.ended()
            elif not isinstance(step, Run):
                self._sleep(step)
            elif self._run(step):
                self._go_on()
        except (KeyboardInterrupt, SystemExit):
            self._home.give_up()
            raise
        except BaseException as error:
            self._home.broken(error)
            raise

    def another(self) -> "InlineWorker[P, R]":
        """See `Worker`."""
        return InlineWorker(self._home, self.instance, self._function, name=self._name, limit_s=self._limit_s)

    def cut(self) -> None:
        """Nothing that runs on the loop can be cut from there; the guard does it."""

    def dismiss(self) -> None:
        """See `Worker`: nothing sleeps."""

    def _go_on(self) -> None:
        """After a batch. What waits has to wait a turn of the loop longer, so that what has come meanwhile joins it."""
        self._home.dispatcher.end(self)
        if self._usual_s > _GROWN * self._limit_s and self._stand_aside():
            return
        if self._home.dispatcher.queued_rows:
            self._home.loop.call_soon(self.wake)
        else:
            self.wake()

    def _sleep(self, until_s: float) -> None:
        if until_s != math.inf:
            self._timer = self._home.loop.call_later(max(until_s - self._home.clock(), 0.0), self._slept)

    def _slept(self) -> None:
        self._timer = None
        if self._home.dispatcher.stop_waiting(self):
            self.wake()

    def _run(self, run: Run[Request[P, R]]) -> bool:
        """Whether it was run here; else the thread has it."""
        steps = self._home.attempts(run, self._home.deliver)
        payloads = next(steps, None)
        while payloads is not None:
            call: Call
            began_s = self._home.clock()
            self._guard.begin()
            try:
                call = self._function(payloads), None
            except BaseException as error:
                call = None, error
            if self._guard.end() and self._hung(run):
                return False
            self._took(self._home.clock() - began_s)
            try:
                payloads = steps.send(call)
            except StopIteration:
                payloads = None
            if isinstance(call[1], (KeyboardInterrupt, SystemExit)):
                raise call[1]
        return True

    def _took(self, seconds: float) -> None:
        self._usual_s += _SMOOTHING * (min(seconds, _OUTLIER * self._limit_s) - self._usual_s)

    def _hung(self, run: Run[Request[P, R]]) -> bool:
        self._usual_s = _OUTLIER * self._limit_s  # so that the thread has to show many that are short
        return self._hand_over(run, away_s=_LONGEST_AWAY_S)

    def _stand_aside(self) -> bool:
        before_s = self._away_s if self._home.clock() - self._since_s < _LONGEST_AWAY_S else 0.0
        away_s = min(max(2 * before_s, _AWAY_S), _LONGEST_AWAY_S)
        if not self._hand_over(None, away_s=away_s):
            return False
        self._away_s = away_s
        return True

    def _hand_over(self, run: Run[Request[P, R]] | None, *, away_s: float) -> bool:
        """Let a thread take this worker's place, and its run. Returns whether there is one."""
        self._until_s = self._home.clock() + away_s
        thread: ThreadWorker[P, R] = ThreadWorker(
            self._home, self.instance, self._function, name=self._name, first=run, relieve=self._relieve
        )
        self._home.dispatcher.replace(self, thread)
        try:
            thread.start()
        except RuntimeError:  # the system has none to spare
            self._home.dispatcher.replace(thread, self)
            return False
        return True

    def _relieve(self, thread: ThreadWorker[P, R], took_s: float) -> bool:
        """Called by the thread that stands in; whether it has to go on no more."""
        self._took(took_s)
        if self._usual_s > _GROWN * self._limit_s or self._home.clock() < self._until_s:
            return False
        if not self._home.dispatcher.replace(thread, self):
            return False
        thread.post(self.start)
        return True


class _Guard:
    """Looks from a thread, eight times a second while calls are made, whether one hangs.

    A call hangs that is there at three looks in a row: where the whole process was stopped, it is at two.
    """

    def __init__(self, interrupt: Callable[[], None]) -> None:
        self._interrupt = interrupt
        self._calls = 0
        self._is_called = False
        self._interrupted = -1
        self._looker: threading.Thread | None = None

    def begin(self) -> None:
        """A call begins."""
        self._calls += 1
        self._is_called = True
        if self._looker is None:
            self._looker = threading.Thread(target=self._look, name="redserve-guard", daemon=True)
            try:
                self._looker.start()
            except RuntimeError:  # the system has none to spare: the next call asks again
                self._looker = None

    def end(self) -> bool:
        """The call has ended. Returns whether it was interrupted."""
        self._is_called = False
        return self._interrupted == self._calls

    def _look(self) -> None:
        idle = calls = again = 0
        while idle < _LOOKS_WITHOUT_WORK or self._calls != calls:
            is_same = self._calls == calls
            idle = idle + 1 if is_same else 0
            again = again + 1 if is_same and self._is_called else 0
            calls = self._calls
            if again >= _LOOKS_AT_A_HANG:
                self._interrupted = calls
                self._interrupt()
            time.sleep(_LOOK_S)
        self._looker = None
