"""The requests of one group, in the order in which they are to run: pure logic.

turn_s    o──o──o────o──────o──o───o      earliest deadline first; who has none takes a turn as if `PATIENCE_S`
          ▲ remove       ▲ insert  ▲ append: where all have the same budget, or none, who comes last goes last
"""

import math
from bisect import bisect_left, bisect_right, insort_right
from operator import attrgetter
from typing import Generic

from redserve.batching.waiting import W

_turn_s = attrgetter("turn_s")


class Line(Generic[W]):
    """What waits of one group.

    Attributes:
        requests: By turn; of equal turns, who came first.
        rows: Of all of them.
    """

    __slots__ = ("requests", "rows")

    def __init__(self) -> None:
        self.requests: list[W] = []
        self.rows = 0

    def insert(self, request: W) -> None:
        """Put `request` behind all whose turn is not later."""
        requests = self.requests
        if not requests or requests[-1].turn_s <= request.turn_s:
            requests.append(request)
        else:
            insort_right(requests, request, key=_turn_s)
        self.rows += request.rows

    def index(self, request: W) -> int:
        """Where `request`, which is here, stands."""
        index = bisect_left(self.requests, request.turn_s, key=_turn_s)
        while self.requests[index] is not request:
            index += 1
        return index

    def first_deadline_s(self) -> float:
        """The earliest deadline, or `inf`."""
        return next((request.deadline_s for request in self.requests if request.deadline_s != math.inf), math.inf)

    def first(self, max_rows: int) -> range:
        """As many from the head as fit `max_rows`."""
        for count, request in enumerate(self.requests):
            max_rows -= request.rows
            if max_rows < 0:
                return range(count)
        return range(len(self.requests))

    def late(self, *, first_end_s: float, then_every_s: float, max_rows: int) -> list[tuple[int, float]]:
        """Who would be late if batches of `max_rows`, from the head, ended at these times; those leave their place.

        Returns:
            Their indices, and by how many seconds.
        """
        late: list[tuple[int, float]] = []
        end_s, room = first_end_s, max_rows
        for index, request in enumerate(self.requests):
            if request.rows > room:
                end_s, room = end_s + then_every_s, max_rows
            if request.deadline_s < end_s:
                late.append((index, end_s - request.deadline_s))
            else:
                room -= request.rows
        return late

    def rows_before(self, turn_s: float) -> int:
        """Rows of those who would run before a newcomer of this turn."""
        requests = self.requests
        if not requests or requests[-1].turn_s <= turn_s:
            return self.rows
        return sum([request.rows for request in requests[: bisect_right(requests, turn_s, key=_turn_s)]])
