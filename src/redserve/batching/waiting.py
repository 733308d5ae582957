"""What waits."""

import math
from collections.abc import Hashable
from typing import Final, TypeVar

NEVER_S: Final = math.inf
"""The deadline of what may be answered at any time."""

PATIENCE_S: Final = 1.0
"""A request without a deadline takes its turn as if it were due so long after its arrival, though it never expires.

So those due earlier overtake it, but no stream of deadlines, however dense, keeps it waiting for ever.
"""


class Waiting:
    """A place in the line; what waits there derives from it.

    Attributes:
        rows: How many rows of a batch it fills; >= 1.
        group: Only requests of equal groups share a batch.
        size_bytes: What it holds in memory, counted against `max_queue_bytes`.
        arrived_s: When it came.
        deadline_s: When its answer is due; `inf`: whenever it comes.
        turn_s: What it is sorted by.
    """

    __slots__ = ("arrived_s", "deadline_s", "group", "rows", "size_bytes", "turn_s")

    def __init__(
        self,
        arrived_s: float,
        rows: int = 1,
        group: Hashable = None,
        size_bytes: int = 0,
        deadline_s: float = NEVER_S,
    ) -> None:
        self.arrived_s = arrived_s
        self.deadline_s = deadline_s
        self.turn_s = arrived_s + PATIENCE_S if deadline_s == NEVER_S else deadline_s
        self.rows = rows
        self.group = group
        self.size_bytes = size_bytes


W = TypeVar("W", bound=Waiting)
