"""Finds those whose deadline passes while they are queued, by one timer for all of them."""

import asyncio
import contextvars
import math
from collections.abc import Callable
from typing import Generic, TypeVar

from redserve.batching.dispatcher import Dispatcher
from redserve.batching.waiting import Waiting

W = TypeVar("W", bound=Waiting)

_FINEST_TIMER_S = 0.001  # what epoll rounds to


class Expiry(Generic[W]):
    """While anything with a deadline is queued, a timer stands no later than at the earliest of the deadlines.

    It is left where it is when that one is taken or cancelled, so that a constant budget costs a timer now and then,
    not one a request; and it needs no worker, so that a hung function delays nobody's answer.

    Args:
        dispatcher: Whose queue to look after.
        turn_away: Called on the loop with those whose deadline has passed; they have left the queue.
        clock: That the deadlines are told in.
    """

    def __init__(
        self, dispatcher: Dispatcher[W], *, turn_away: Callable[[list[W]], None], clock: Callable[[], float]
    ) -> None:
        self._dispatcher = dispatcher
        self._turn_away = turn_away
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.Context()
        self._timer: asyncio.TimerHandle | None = None
        self._stands_s = math.inf

    def watch(self, deadline_s: float) -> None:
        """Something with this deadline is queued from now on. Cheap, for every request."""
        if deadline_s < self._stands_s:
            self._arm(deadline_s)

    def close(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._stands_s = None, math.inf

    def _arm(self, deadline_s: float) -> None:
        self.close()
        self._stands_s = deadline_s
        delay_s = max(deadline_s - self._clock(), _FINEST_TIMER_S)
        self._timer = self._loop.call_later(delay_s, self._look, context=self._context)

    def _look(self) -> None:
        self.close()
        expired, next_s = self._dispatcher.expire(now_s=self._clock())
        self.watch(next_s)
        if expired:
            self._turn_away(expired)
