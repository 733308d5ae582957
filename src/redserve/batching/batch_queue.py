"""The waiting line in front of the engines: pure logic, told the time (`now_s`).

    offer ──> [ one line in order of arrival, and one per group ] ──> take: a batch of one group, and why
    cancel ─────────┘

The group whose head arrived first goes first; inside a group requests are never overtaken. Every step costs the same
however many wait, except that `take` costs what it takes.
"""

import math
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from redserve.batching.policy import BatchPolicy
from redserve.errors import QueueFull


class Waiting:
    """A place in the line; what waits there derives from it.

    Attributes:
        rows: How many rows of a batch it fills; >= 1.
        group: Only requests of equal groups share a batch.
        size_bytes: What it holds in memory, counted against `max_queue_bytes`.
        arrived_s: When it came.
    """

    __slots__ = ("arrived_s", "group", "rows", "size_bytes")

    def __init__(self, *, arrived_s: float, rows: int = 1, group: Hashable = None, size_bytes: int = 0) -> None:
        self.arrived_s = arrived_s
        self.rows = rows
        self.group = group
        self.size_bytes = size_bytes


W = TypeVar("W", bound=Waiting)


@dataclass(frozen=True, slots=True)
class Batch(Generic[W]):
    """What runs together, first come first.

    Attributes:
        requests: At least one, all of one group.
        rows: Of all of them.
        why: `full` (no room for the next row), `delay` (the oldest has waited long enough), `linger` (an engine had
            waited for it after its last batch) or `idle` (an engine was free).
    """

    requests: list[W]
    rows: int
    why: str


class _Line(Generic[W]):
    """The requests of one group, in order of arrival."""

    __slots__ = ("requests", "rows")

    def __init__(self) -> None:
        self.requests: OrderedDict[W, None] = OrderedDict()
        self.rows = 0


class BatchQueue(Generic[W]):
    """Groups what waits into batches by `policy`, oldest first.

    Attributes:
        rows: That wait now.
        size_bytes: That wait now.
    """

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        self._by_arrival: OrderedDict[W, None] = OrderedDict()
        self._lines: dict[Hashable, _Line[W]] = {}
        self._full: dict[Hashable, None] = {}  # the groups that fill a batch; a dict for its order
        self.rows = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._by_arrival)

    @property
    def is_full(self) -> bool:
        """Whether some group fills a batch, so that waiting longer gains it nothing."""
        return bool(self._full)

    def offer(self, *requests: W) -> None:
        """Put `requests` last in line, all of them or none.

        An empty queue takes whatever comes, so a request larger than the bounds is served when its turn comes
        instead of never; what may come at all is limited where bodies are read.

        Raises:
            ValueError: One has no rows, or more than fit a batch; split before offering.
            QueueFull: Their rows or bytes do not fit beside what waits.
        """
        rows = size_bytes = 0
        for request in requests:
            if not 1 <= request.rows <= self._policy.max_batch_size:
                raise ValueError(f"{request.rows} rows do not fit a batch of 1 to {self._policy.max_batch_size}")
            rows += request.rows
            size_bytes += request.size_bytes
        if self._by_arrival:
            if self.rows + rows > self._policy.max_queue_rows:
                raise QueueFull(waiting=self.rows, limit=self._policy.max_queue_rows)
            if self.size_bytes + size_bytes > self._policy.max_queue_bytes:
                raise QueueFull(waiting=self.size_bytes, limit=self._policy.max_queue_bytes, unit="bytes")
        for request in requests:
            self._append(request)

    def due_s(self) -> float:
        """When `take` next yields a batch: `-inf` is at once, `inf` is never."""
        if not self._by_arrival:
            return math.inf
        if self._full:
            return -math.inf
        return next(iter(self._by_arrival)).arrived_s + self._policy.max_queue_delay_s

    def take(self, *, now_s: float) -> Batch[W] | None:
        """Remove and return the batch due by `now_s`; `None` when none is. A `now_s` of `inf` ends every delay."""
        if now_s < self.due_s() or not self._by_arrival:
            return None
        oldest = next(iter(self._by_arrival))
        is_due = now_s >= oldest.arrived_s + self._policy.max_queue_delay_s
        group = oldest.group if is_due else next(iter(self._full))
        why = "delay" if self._policy.max_queue_delay_s else "idle"
        if group in self._full:
            why = "full"

        line = self._lines[group]
        room = self._policy.max_batch_size
        requests: list[W] = []
        for request in line.requests:
            if request.rows > room:
                break
            room -= request.rows
            requests.append(request)
        for request in requests:
            self._remove(request, line)
        return Batch(requests, self._policy.max_batch_size - room, why)

    def cancel(self, request: W) -> bool:
        """Take `request` out of the line; `False` when it is no longer in it."""
        if request not in self._by_arrival:
            return False
        self._remove(request, self._lines[request.group])
        return True

    def clear(self) -> list[W]:
        """Take everything out, oldest first."""
        requests = list(self._by_arrival)
        self._by_arrival.clear()
        self._lines.clear()
        self._full.clear()
        self.rows = self.size_bytes = 0
        return requests

    def _append(self, request: W) -> None:
        line = self._lines.get(request.group)
        if line is None:
            line = self._lines[request.group] = _Line()
        line.requests[request] = None
        line.rows += request.rows
        if line.rows >= self._policy.max_batch_size:
            self._full[request.group] = None
        self._by_arrival[request] = None
        self.rows += request.rows
        self.size_bytes += request.size_bytes

    def _remove(self, request: W, line: _Line[W]) -> None:
        del line.requests[request]
        line.rows -= request.rows
        if line.rows < self._policy.max_batch_size:
            self._full.pop(request.group, None)
        if not line.requests:
            del self._lines[request.group]
        del self._by_arrival[request]
        self.rows -= request.rows
        self.size_bytes -= request.size_bytes
