"""A batch while it runs, and who runs it.

call_begins ──> call_ended ──> (where it failed, again with parts of the batch) ──> is_cut, where it took too long
"""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from redserve.batching.batch import Batch
from redserve.batching.report import BatchReport
from redserve.batching.sizes import padded
from redserve.batching.waiting import Waiting

W = TypeVar("W", bound=Waiting)


class Worker(Protocol):
    """Runs the batches of one instance, one at a time."""

    instance: "Instance"
    has_lingered: bool

    def start(self) -> None:
        """Ask for the first step."""

    def wake(self) -> None:
        """Ask for the next step; called once each time the worker was found idle, with no lock held."""

    def another(self) -> "Worker":
        """One more of its kind for its instance, because it is stuck."""

    def cut(self) -> None:
        """Stop the function, where that is possible at all."""

    def dismiss(self) -> None:
        """Sleep no more: there will be no next step. Called instead of `wake`."""


class Instance:
    """One of the functions that run side by side; the workers of it, under the dispatcher's lock."""

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self.stuck: set[Worker] = set()


class Run(Generic[W]):
    """A batch while it runs.

    Attributes:
        batch: What runs.
        worker: That runs it.
        taken_s: When the batch left the queue.
        called_s: When the function was last called with it, or with part of it.
        is_called: Whether the function is in that call.
        is_cut: Answered already; whatever the function still returns is ignored.
        is_clean: No call of it has failed.
    """

    __slots__ = (
        "_called_with",
        "_is_reported",
        "_sizes",
        "batch",
        "called_s",
        "is_called",
        "is_clean",
        "is_cut",
        "taken_s",
        "worker",
    )

    def __init__(self, batch: Batch[W], worker: Worker, *, taken_s: float, sizes: Sequence[int] = ()) -> None:
        self.batch = batch
        self.worker = worker
        self._sizes = sizes
        self.taken_s = self.called_s = taken_s
        self.is_called = False
        self.is_cut = False
        self.is_clean = True
        self._called_with: Sequence[W] = batch.requests
        self._is_reported = False  # the whole batch, which another worker may run once more

    def call_begins(self, requests: Sequence[W], *, now_s: float) -> None:
        """The function is called with `requests`: first with the whole batch, then, where that failed, with parts."""
        self._called_with = requests
        self.called_s = now_s
        self.is_called = True

    def call_ended(self, *, now_s: float, has_failed: bool) -> BatchReport:
        """The function has returned, or is given up; `has_failed` as in the report."""
        self.is_called = False
        self.is_clean = self.is_clean and not has_failed
        is_first = len(self._called_with) == len(self.batch.requests) and not self._is_reported
        self._is_reported = True
        rows = sum(request.rows for request in self._called_with)
        return BatchReport(
            rows=rows,
            why=self.batch.why if is_first else "split",
            waits_s=[self.taken_s - request.arrived_s for request in self.batch.requests] if is_first else (),
            compute_s=now_s - self.called_s,
            has_failed=has_failed,
            padded_rows=padded(rows, self._sizes) - rows if self._sizes else 0,
        )
