"""Which of those who wait run now: pure logic, told the time.

due     ▲  x  x  x  o──o──o──o──o──o  o  o
        │  too late  └── the window ──┘  next time
"""

import math
from collections.abc import Callable, Sequence

from redserve.batching.line import Waiting

_GAIN = 1.05  # what a later start has to bring, in rows per second, to pass over one that would be in time


def choose_window(
    requests: Sequence[Waiting], *, max_rows: int, now_s: float, service_s: Callable[[int], float]
) -> range | None:
    """The part of a line that is best run now; `None` when nobody in it can be answered in time.

    A batch is never made smaller to save its oldest: the others would pay for it. Whoever forces a small batch is
    passed over instead.
    """
    best: range | None = None
    best_rate = 0.0
    rows = stop = 0
    for start, first in enumerate(requests):
        while stop < len(requests) and rows + requests[stop].rows <= max_rows:
            rows += requests[stop].rows
            stop += 1
        seconds = service_s(rows)
        if now_s + seconds <= _first_deadline_s(requests, start, stop):
            rate = rows / seconds if seconds else math.inf
            if rate > best_rate * _GAIN or best is None:
                best, best_rate = range(start, stop), rate
            if stop == len(requests) or rows == max_rows:
                break
        rows -= first.rows
    return best


def _first_deadline_s(requests: Sequence[Waiting], start: int, stop: int) -> float:
    for index in range(start, stop):
        if requests[index].deadline_s != math.inf:
            return requests[index].deadline_s
    return math.inf
