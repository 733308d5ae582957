"""What is due, and when something is next: the plan of an open loop, told the time."""

import math

from redserve.bench.arrivals import Arrivals


class Pacer:
    """Hands out the planned times of `arrivals` that lie before `end_s`, each once, in order.

    What is late stays due: a sender that fell behind gets everything it missed, with the times it was planned for.
    """

    def __init__(self, arrivals: Arrivals, *, end_s: float) -> None:
        self._times = arrivals.times_s()
        self._end_s = end_s
        self._next_s = self._following_s()

    def next_s(self) -> float:
        """When the next one is due; `inf` when there is none."""
        return self._next_s

    def take(self, *, now_s: float, limit: int) -> list[float]:
        """The planned times due by `now_s`, the earliest `limit` of them."""
        due: list[float] = []
        while self._next_s <= now_s and len(due) < limit:
            due.append(self._next_s)
            self._next_s = self._following_s()
        return due

    def drop(self, *, now_s: float) -> int:
        """How many are due and were not taken; nothing is handed out any more."""
        left = 0
        while self._next_s <= now_s:
            left += 1
            self._next_s = self._following_s()
        self._next_s = math.inf
        return left

    def _following_s(self) -> float:
        next_s = next(self._times, math.inf)
        return next_s if next_s < self._end_s else math.inf
