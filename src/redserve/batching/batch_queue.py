"""The waiting line in front of the engines: pure logic, told the time (`now_s`).

    offer ──> [ one line per group, by turn ] ──> take: a batch of one group, and why
    cancel, expire ─────┘

The group whose head is due first goes first, and inside a group who is due first; without deadlines that is the order
of arrival, and a step costs the same however many wait, except that `take` costs what it takes.
"""

import math
from collections import OrderedDict
from collections.abc import Collection, Hashable
from itertools import islice
from typing import Final, Generic

from redserve.batching.batch import Batch
from redserve.batching.cost import CostModel
from redserve.batching.line import Line
from redserve.batching.policy import BatchPolicy
from redserve.batching.waiting import NEVER_S, W, Waiting
from redserve.batching.window import choose_window, cut_to_size
from redserve.errors import QueueFull

__all__ = ["Batch", "BatchQueue", "Waiting"]

_LOOKED_AT: Final = 32
_WAKE_LATE_S: Final = 0.002  # a sleeper may wake so late


class BatchQueue(Generic[W]):
    """Groups what waits into batches by `policy`, earliest deadline first, then oldest first.

    Attributes:
        rows: That wait now.
        size_bytes: That wait now.
    """

    def __init__(self, policy: BatchPolicy, cost: CostModel | None = None) -> None:
        self._policy = policy
        self._max_rows = policy.max_batch_size
        self._cost = cost or CostModel({})
        self._by_arrival: OrderedDict[W, None] = OrderedDict()
        self._lines: dict[Hashable, Line[W]] = {}
        self._full: dict[Hashable, None] = {}  # the groups that fill a batch; a dict for its order
        self._with_deadline = 0
        self._hopeless: list[W] = []
        self.rows = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._by_arrival)

    @property
    def has_deadlines(self) -> bool:
        """Whether anybody waits who has one."""
        return self._with_deadline > 0

    @property
    def is_full(self) -> bool:
        """Whether some group fills a batch, so that waiting longer gains it nothing."""
        return bool(self._full)

    def can_wait(self, until_s: float) -> bool:
        """Whether no batch is full, and no deadline is missed for it if the next one begins at `until_s`."""
        return not self._full and until_s < self._safe_start_s()

    def offer(self, *requests: W) -> None:
        """Queue `requests`, all of them or none.

        An empty queue takes whatever comes, so a request larger than the bounds is served when its turn comes
        instead of never; what may come at all is limited where bodies are read.

        Raises:
            ValueError: One has no rows, or more than fit a batch; split before offering.
            QueueFull: Their rows or bytes do not fit beside what waits.
        """
        rows = size_bytes = 0
        max_rows = self._max_rows
        for request in requests:
            if not 1 <= request.rows <= max_rows:
                raise ValueError(f"{request.rows} rows do not fit a batch of 1 to {max_rows}")
            rows += request.rows
            size_bytes += request.size_bytes
        if self._by_arrival:
            if self.rows + rows > self._policy.max_queue_rows:
                raise QueueFull(waiting=self.rows, limit=self._policy.max_queue_rows)
            if self.size_bytes + size_bytes > self._policy.max_queue_bytes:
                raise QueueFull(waiting=self.size_bytes, limit=self._policy.max_queue_bytes, unit="bytes")
        for request in requests:
            self._insert(request)

    def due_s(self) -> float:
        """When `take` next yields a batch: `-inf` is at once, `inf` is never."""
        if not self._by_arrival:
            return math.inf
        if self._full:
            return -math.inf
        return self._delay_ends_s()

    def take(self, *, now_s: float, is_draining: bool = False, others_free_s: float = math.inf) -> Batch[W] | None:
        """Remove and return the batch due by `now_s`; `None` when none is.

        Whoever can no longer be answered in time leaves the queue as well, see `pop_hopeless`.

        Args:
            now_s: The time.
            is_draining: Ends every delay.
            others_free_s: When another engine may take what is left; the one that takes this is busy until then.
        """
        if self._with_deadline:
            self._drop_expired(now_s)
        if not self._by_arrival or (now_s < self.due_s() and not is_draining):
            return None
        lines: Collection[Line[W]] = self._lines.values()
        if not is_draining and now_s < self._delay_ends_s():
            lines = [self._lines[group] for group in self._full]
        elif not self._with_deadline:
            lines = [self._lines[next(iter(self._by_arrival)).group]]
        line, window = self._choose(lines, now_s)
        sizes = self._policy.batch_sizes
        if sizes:
            window = cut_to_size(line.requests, window, sizes=sizes, now_s=now_s, cost=self._cost)

        why = "delay" if self._policy.max_queue_delay_s else "idle"
        is_last = window.stop == len(line.requests)
        rows = self.rows
        requests = self._remove(line, window.start, window.stop)
        rows -= self.rows
        if rows == self._max_rows or not is_last:
            why = "full"
        if window.start:
            again_s = min(now_s + self._cost.service_s(rows), others_free_s)
            self._drop_due_before(line, window.start, again_s + self._cost.service_s(1))
        return Batch(requests, rows, why)

    def around(self, request: W) -> tuple[int, int, list[int]]:
        """Rows of its group that would run before `request`, and behind it; and those of each group that goes before.

        Of more groups than `_LOOKED_AT` some are overlooked, rather than that each newcomer looks at all of them.
        """
        line = self._lines.get(request.group)
        before = line.rows_before(request.turn_s) if line else 0
        behind = line.rows - before if line else 0
        lines = islice(self._lines.values(), _LOOKED_AT) if len(self._lines) > 1 else ()
        others = [other.rows for other in lines if other is not line and _head_turn(other)[0] <= request.turn_s]
        return before, behind, others

    def latest_start_s(self) -> float:
        """When the next batch has to begin for its first deadline to be met; `inf` where nobody has one."""
        if not self._with_deadline:
            return math.inf
        return min(
            line.first_deadline_s() - self._cost.service_s(min(line.rows, self._max_rows))
            for line in self._lines.values()
        )

    def drop_late(self, free_s: float, *, engines: int) -> list[tuple[W, float]]:
        """Take out those who would be late by the mean, behind full batches of their group.

        Args:
            free_s: When the next engine is free.
            engines: That run what waits.

        Returns:
            They, and by how many seconds.
        """
        full_s = self._cost.service_s(self._max_rows)
        dropped: list[tuple[W, float]] = []
        for line in list(self._lines.values()):
            late = line.late(first_end_s=free_s + full_s, then_every_s=full_s / engines, max_rows=self._max_rows)
            for index, late_s in reversed(late):
                (request,) = self._remove(line, index, index + 1)
                dropped.append((request, late_s))
        return dropped

    def pop_hopeless(self) -> list[W]:
        """Those who left the queue since the last call because they can no longer be answered in time."""
        hopeless, self._hopeless = self._hopeless, []
        return hopeless

    def expire(self, *, now_s: float) -> float:
        """Make those hopeless whose deadline has passed; returns the next deadline, or `inf`."""
        if not self._with_deadline:
            return math.inf
        self._drop_expired(now_s)
        return min((line.first_deadline_s() for line in self._lines.values()), default=math.inf)

    def cancel(self, request: W) -> bool:
        """Take `request` out of the line; `False` when it is no longer in it."""
        if request not in self._by_arrival:
            return False
        line = self._lines[request.group]
        index = line.index(request)
        self._remove(line, index, index + 1)
        return True

    def clear(self) -> list[W]:
        """Take everything out, oldest first."""
        requests = list(self._by_arrival)
        self._by_arrival.clear()
        self._lines.clear()
        self._full.clear()
        self.rows = self.size_bytes = self._with_deadline = 0
        return requests

    def _delay_ends_s(self) -> float:
        """When whoever waits has waited for company long enough; no deadline is missed for it."""
        ends_s = next(iter(self._by_arrival)).arrived_s + self._policy.max_queue_delay_s
        return min(ends_s, self._safe_start_s()) if self._policy.max_queue_delay_s else ends_s

    def _safe_start_s(self) -> float:
        """`latest_start_s`, but with all likely noise."""
        if not self._with_deadline:
            return math.inf
        margin_s = _WAKE_LATE_S + 3 * math.sqrt(self._cost.noise) * self._cost.service_s(self._max_rows)
        return self.latest_start_s() - margin_s

    def _insert(self, request: W) -> None:
        line = self._lines.get(request.group)
        if line is None:
            line = self._lines[request.group] = Line()
        line.insert(request)
        if line.rows >= self._max_rows:
            self._full[request.group] = None
        self._by_arrival[request] = None
        self.rows += request.rows
        self.size_bytes += request.size_bytes
        if request.deadline_s != NEVER_S:
            self._with_deadline += 1

    def _remove(self, line: Line[W], start: int, stop: int) -> list[W]:
        removed = line.requests[start:stop]
        del line.requests[start:stop]
        group = removed[0].group
        if len(removed) == len(self._by_arrival):  # all that waits
            self._by_arrival.clear()
            rows = self.rows
            self.size_bytes = self._with_deadline = 0
        else:
            rows = 0
            for request in removed:
                del self._by_arrival[request]
                rows += request.rows
                self.size_bytes -= request.size_bytes
                if request.deadline_s != NEVER_S:
                    self._with_deadline -= 1
        line.rows -= rows
        self.rows -= rows
        if line.rows < self._max_rows:
            self._full.pop(group, None)
        if not line.requests:
            del self._lines[group]
        return removed

    def _choose(self, lines: Collection[Line[W]], now_s: float) -> tuple[Line[W], range]:
        """Which line, and who of it, runs now."""
        if len(lines) > 1:
            lines = sorted(lines, key=_head_turn)
        if not self._with_deadline or not self._cost.knows_something:
            line = next(iter(lines))
            return line, line.first(self._max_rows)
        for line in lines:
            if line.rows <= self._max_rows and now_s + self._cost.service_s(line.rows) <= line.first_deadline_s():
                return line, range(len(line.requests))  # as `choose_window` would, without looking at each
            window = choose_window(line.requests, max_rows=self._max_rows, now_s=now_s, cost=self._cost)
            if window is not None:
                return line, window
        # By all that is known nobody can be answered in time; the youngest is tried, so that it is known for sure.
        line = max(lines, key=lambda line: line.requests[-1].turn_s)
        return line, range(len(line.requests) - 1, len(line.requests))

    def _drop_due_before(self, line: Line[W], count: int, when_s: float) -> None:
        """Of the first `count` of a line."""
        for index in reversed(range(count)):
            if line.requests[index].deadline_s < when_s:
                self._hopeless += self._remove(line, index, index + 1)

    def _drop_expired(self, now_s: float) -> None:
        for line in list(self._lines.values()):
            index = 0
            while index < len(line.requests) and line.requests[index].turn_s <= now_s:
                if line.requests[index].deadline_s <= now_s:
                    self._hopeless += self._remove(line, index, index + 1)
                else:
                    index += 1


def _head_turn(line: Line[W]) -> tuple[float, float]:
    head = line.requests[0]
    return head.turn_s, head.arrived_s
