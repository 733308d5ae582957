"""Finds runs that take too long, by one timer for all of them."""

import asyncio
import contextvars
import math
from collections.abc import Callable
from typing import Generic, TypeVar

from redserve.batching.dispatcher import Dispatcher
from redserve.batching.run import Run
from redserve.batching.waiting import Waiting

W = TypeVar("W", bound=Waiting)

_FINEST_TIMER_S = 0.001  # what epoll rounds to


class Watchdog(Generic[W]):
    """While anything is queued or runs, a timer stands at the moment when the oldest run would be overdue.

    Args:
        dispatcher: Whose runs to watch.
        limit_s: Longest that one call of the function may take.
        cut: Called on the loop with each run that takes longer.
        clock: That the runs are timed with.
    """

    def __init__(
        self, dispatcher: Dispatcher[W], *, limit_s: float, cut: Callable[[Run[W]], None], clock: Callable[[], float]
    ) -> None:
        self._dispatcher = dispatcher
        self._limit_s = limit_s
        self._cut = cut
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.Context()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Something may run from now on. Cheap, for every flush."""
        if self._timer is None:
            self._arm(self._limit_s)

    def close(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, delay_s: float) -> None:
        self._timer = self._loop.call_later(delay_s, self._look, context=self._context)

    def _look(self) -> None:
        self._timer = None
        late, oldest_s = self._dispatcher.overdue(since_s=self._clock() - self._limit_s)
        if oldest_s != math.inf:
            self._arm(max(oldest_s + self._limit_s - self._clock(), _FINEST_TIMER_S))
        for run in late:
            self._cut(run)
