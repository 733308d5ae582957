"""Dynamic batching as Prometheus sees it: how much waits, how long, and what the batches were like.

    watch(name, version, depth, limit) ─> recorder     queue depth and limit are read at each scrape
    recorder.record(report)                            once a batch: waits, size, compute time, why it left the queue
    recorder.close()                                   the queue is gone, and so are its depth and limit; counts stay

It fits `Batcher(observer=...)` by shape and knows nothing of batching itself.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, final

from prometheus_client import CollectorRegistry

from redserve.metrics.buckets import checked_bounds, latency_buckets
from redserve.metrics.cells import Counter, Gauge, Histogram
from redserve.metrics.families import FamilySet, shared_families
from redserve.metrics.labels import BoundedValues

_BATCH_SIZES = tuple(2.0**power for power in range(11))  # 1..1024 rows
_MAX_MODELS = 100
_MAX_VERSIONS = 100
_MAX_REASONS = 20


class BatchLike(Protocol):
    """What `record` reads of a batch report."""

    @property
    def rows(self) -> int:
        """Rows run together."""

    @property
    def why(self) -> str:
        """Why the batch left the queue: full, idle, linger, delay or split."""

    @property
    def waits_s(self) -> Sequence[float]:
        """How long each request of the batch was queued."""

    @property
    def compute_s(self) -> float:
        """How long the run took."""

    @property
    def padded_rows(self) -> int:
        """Rows that ran beside them for the sake of the size."""


@final
class BatchMetrics:
    """The batching instruments of one registry and namespace; however often it is made, the numbers are the same ones.

    Args:
        registry: Where the families are registered; `None` is prometheus_client's default registry.
        namespace: What the names begin with.
        buckets: Upper bounds of both time histograms in seconds; `None` is `latency_buckets()`.

    Raises:
        ValueError: The registry has these families with other settings, or from elsewhere.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        namespace: str = "inference",
        buckets: Sequence[float] | None = None,
    ) -> None:
        bounds = latency_buckets() if buckets is None else checked_bounds(buckets)
        self._families = shared_families(_BatchFamilies, registry, namespace, buckets=bounds)

    def watch(self, name: str, version: str, depth: Callable[[], int], limit: int) -> "BatchRecorder":
        """Show a queue, from now until its recorder is closed.

        Args:
            name: Of the model or function; the `model` label.
            version: Of the model; empty for none.
            depth: Rows waiting now; called at each scrape.
            limit: Rows that may wait.

        Two queues of the same name and version are one series, of the sum of their depths and limits.
        """
        return BatchRecorder(self._families, name, version, depth, limit)

    def remove(self, name: str, version: str) -> None:
        """Take the counts of a queue that is closed out of the exposition; one that is not there is no mistake."""
        families = self._families
        for histogram in (families.queue_wait, families.batch_size, families.compute):
            histogram.remove(name, version)
        families.padded_rows.remove(name, version)
        for series, _, _ in families.batches.copy():
            if series.values[:2] == (name, version):
                families.batches.remove(*series.values)
        left = [series.values for series, _, _ in families.batch_size.copy()]
        if all(values[0] != name for values in left):
            families.models.forget(name)
        if all(values[1] != version for values in left):
            families.versions.forget(version)


@final
class BatchRecorder:
    """Counts the batches of one queue; made by `BatchMetrics.watch`."""

    def __init__(
        self, families: "_BatchFamilies", name: str, version: str, depth: Callable[[], int], limit: int
    ) -> None:
        labels = (families.models.bounded(name), families.versions.bounded(version))
        self._labels = labels
        self._families = families
        self._wait = families.queue_wait.series(*labels)
        self._size = families.batch_size.series(*labels)
        self._compute = families.compute.series(*labels)
        self._stop_depth = families.queue_depth.watch(depth, *labels)
        self._stop_limit = families.queue_limit.watch(lambda: limit, *labels)

    def record(self, report: BatchLike) -> None:
        """Count one finished batch; on the event loop."""
        families = self._families
        families.queue_wait.observe_all(self._wait, report.waits_s)
        families.batch_size.observe(self._size, report.rows)
        families.compute.observe(self._compute, report.compute_s)
        if report.padded_rows:
            families.padded_rows.series(*self._labels).cell[0] += report.padded_rows
        families.batches.series(*self._labels, families.reasons.bounded(report.why)).cell[0] += 1

    def close(self) -> None:
        """Take the queue's depth and limit out of the exposition; a second time does nothing."""
        self._stop_depth()
        self._stop_limit()


class _BatchFamilies(FamilySet):
    """What all BatchMetrics of one registry and namespace write."""

    def __init__(self, namespace: str, *, buckets: Sequence[float]) -> None:
        labels = ("model", "version")
        self.queue_depth = Gauge(f"{namespace}_batch_queue_depth", "Rows waiting to be batched.", labels)
        self.queue_limit = Gauge(
            f"{namespace}_batch_queue_limit", "Rows that may wait before requests are shed.", labels
        )
        self.queue_wait = Histogram(
            f"{namespace}_queue_wait_seconds",
            "From joining the queue to the start of the batch, for each request.",
            labels,
            bounds=buckets,
            unit="seconds",
        )
        self.batch_size = Histogram(f"{namespace}_batch_size", "Rows run together.", labels, bounds=_BATCH_SIZES)
        self.compute = Histogram(
            f"{namespace}_compute_seconds", "How long a batch ran.", labels, bounds=buckets, unit="seconds"
        )
        self.batches = Counter(f"{namespace}_batches", "Batches run, by what closed them.", (*labels, "why"))
        self.padded_rows = Counter(f"{namespace}_padded_rows", "Rows run only to fill a batch up to its size.", labels)
        super().__init__(
            (
                self.queue_depth,
                self.queue_limit,
                self.queue_wait,
                self.batch_size,
                self.compute,
                self.batches,
                self.padded_rows,
            )
        )
        self.models = BoundedValues("model", _MAX_MODELS)
        self.versions = BoundedValues("version", _MAX_VERSIONS)
        self.reasons = BoundedValues("why", _MAX_REASONS)
