"""Which of those who wait run now, and whether to pad them: pure logic, told the time.

due     ▲  x  x  .  .  o──o──o──o──o──o  o  o
        │  │     │     └── the window ──┘  next time
        │  │     └── would hardly be in time, and the window is full without them
        │  └── too late
"""

import math
from collections.abc import Sequence
from typing import Final

from redserve.batching.cost import CostModel
from redserve.batching.sizes import size_below
from redserve.batching.waiting import Waiting

_CERTAIN: Final = 3.0  # square roots of 2 of standard deviations: in time but for 1 in 100,000
_SURE: Final = 0.97  # of the rows of a window are likely to be in time: no later start is looked for


def choose_window(requests: Sequence[Waiting], *, max_rows: int, now_s: float, cost: CostModel) -> range | None:
    """The part of a line, sorted by turn, that is best run now; `None` when nobody in it can be answered in time.

    A batch is never made smaller to save its oldest: the others would pay for it. Whoever forces a small batch is
    passed over instead. While more wait than fit, and some of the first would hardly be in time, that start is taken
    which brings the most rows likely in time per second: somebody has to go then, and it had better be one of those.
    """
    best: range | None = None
    best_rate = 0.0
    rows = stop = 0
    full_s = cost.service_s(max_rows)
    per_s = 1 / max(full_s * math.sqrt(2 * cost.noise), 1e-9)
    chances: list[float] = []  # rows times the chance to be in time in a full batch, from `offset` on
    offset = 0
    for start, first in enumerate(requests):
        while stop < len(requests) and rows + requests[stop].rows <= max_rows:
            rows += requests[stop].rows
            stop += 1
        seconds = cost.service_s(rows)
        first_deadline_s = _first_deadline_s(requests, start, stop)
        if now_s + seconds <= first_deadline_s:
            if best is None and (stop == len(requests) or (first_deadline_s - now_s - full_s) * per_s > _CERTAIN):
                return range(start, stop)
            offset = offset if chances else start
            for request in requests[offset + len(chances) : stop]:
                slack_s = request.deadline_s - now_s - full_s
                chances.append(request.rows * (0.5 + 0.5 * math.erf(slack_s * per_s)))
            in_time = sum(chances[start - offset : stop - offset])
            if best is None or in_time > best_rate * seconds:
                best, best_rate = range(start, stop), in_time / seconds
            if in_time >= _SURE * rows or stop == len(requests):
                return best
        if first.deadline_s == math.inf and first.turn_s <= now_s:
            return range(start, stop) if best is None else best
        rows -= first.rows
    return best


def cut_to_size(
    requests: Sequence[Waiting], window: range, *, sizes: Sequence[int], now_s: float, cost: CostModel
) -> range:
    """The part of `window` that runs now where batches are padded to `sizes`: all of it, or what fits the size below.

    Nine rows run as nine of 16, or as eight and leave one for the next batch: whichever brings more rows a second, as
    long as nobody who is left is late for it.
    """
    rows = sum([requests[index].rows for index in window])
    below = size_below(rows, sizes)
    if not below or not cost.knows_something:
        return window
    fewer, stop = 0, window.start
    while fewer + requests[stop].rows <= below:
        fewer += requests[stop].rows
        stop += 1
    fewer_s = cost.service_s(fewer)
    if fewer * cost.service_s(rows) <= rows * fewer_s:
        return window
    if now_s + fewer_s + cost.service_s(rows - fewer) > _first_deadline_s(requests, stop, window.stop):
        return window
    return range(window.start, stop)


def _first_deadline_s(requests: Sequence[Waiting], start: int, stop: int) -> float:
    """Earliest of the window; it is sorted, so the first one there is."""
    for index in range(start, stop):
        if requests[index].deadline_s != math.inf:
            return requests[index].deadline_s
    return math.inf
