"""The statistics of the Open Inference Protocol: what each model has done so far, as counters that only grow.

    service ─ how each request ended ─┐
    batcher ─ how each run went ──────┴─> ModelStatistics ─ describe ─> /v2/models/{model}/stats

All on the event loop, so that a description is of one moment. Seconds inside, nanoseconds outside.

Source: `triton-inference-server/server: docs/protocol/extension_statistics.md`. Gathering a batch and splitting its
outputs are part of `compute_infer` here; `compute_input` and `compute_output` count and take no time.
"""

from collections.abc import Callable
from time import time
from typing import Any

from redserve.batching import BatchObserver, BatchRecorder, BatchReport


class ModelStatistics:
    """The counters of one version of one model."""

    __slots__ = (
        "_compute_s",
        "_failed",
        "_failed_s",
        "_last_run_s",
        "_queue_s",
        "_run_rows",
        "_runs",
        "_succeeded",
        "_succeeded_s",
    )

    def __init__(self) -> None:
        self._succeeded = self._failed = self._run_rows = 0
        self._succeeded_s = self._failed_s = self._queue_s = self._compute_s = self._last_run_s = 0.0
        self._runs: dict[int, list[float]] = {}  # by rows: how many, and their seconds

    def succeeded(self, total_s: float, *, queue_s: float, compute_s: float) -> None:
        """A request was answered: in all, in the queue, and in its run."""
        self._succeeded += 1
        self._succeeded_s += total_s
        self._queue_s += queue_s
        self._compute_s += compute_s

    def failed(self, total_s: float) -> None:
        """A request that reached the model ended otherwise."""
        self._failed += 1
        self._failed_s += total_s

    def ran(self, rows: int, compute_s: float) -> None:
        """A run gave results."""
        run = self._runs.get(rows)
        if run is None:
            run = self._runs[rows] = [0, 0.0]
        run[0] += 1
        run[1] += compute_s
        self._run_rows += rows
        self._last_run_s = time()

    def add(self, other: "ModelStatistics") -> None:
        """Count what another process has done as well."""
        self._succeeded += other._succeeded
        self._succeeded_s += other._succeeded_s
        self._failed += other._failed
        self._failed_s += other._failed_s
        self._queue_s += other._queue_s
        self._compute_s += other._compute_s
        self._run_rows += other._run_rows
        self._last_run_s = max(self._last_run_s, other._last_run_s)
        for rows, (runs, seconds) in other._runs.items():
            run = self._runs.setdefault(rows, [0, 0.0])
            run[0] += runs
            run[1] += seconds

    def describe(self, name: str, version: str) -> dict[str, Any]:
        """An entry of `model_stats`."""
        count = self._succeeded
        return {
            "name": name,
            "version": version,
            "last_inference": round(1000 * self._last_run_s),
            "inference_count": self._run_rows,
            "execution_count": sum(int(runs) for runs, _ in self._runs.values()),
            "inference_stats": {
                "success": _duration(count, self._succeeded_s),
                "fail": _duration(self._failed, self._failed_s),
                "queue": _duration(count, self._queue_s),
                "compute_input": _duration(count, 0.0),
                "compute_infer": _duration(count, self._compute_s),
                "compute_output": _duration(count, 0.0),
                "cache_hit": _duration(0, 0.0),
                "cache_miss": _duration(0, 0.0),
            },
            "response_stats": {},
            "batch_stats": [
                {
                    "batch_size": rows,
                    "compute_input": _duration(runs, 0.0),
                    "compute_infer": _duration(runs, seconds),
                    "compute_output": _duration(runs, 0.0),
                }
                for rows, (runs, seconds) in sorted(self._runs.items())
            ],
            "memory_usage": [],
        }


class Statistics:
    """Those of all models; the observer of their batchers, between them and `observer`."""

    def __init__(self, observer: BatchObserver) -> None:
        self._observer = observer
        self._of: dict[tuple[str, str], ModelStatistics] = {}

    def all(self) -> dict[tuple[str, str], ModelStatistics]:
        """Those of every version of every model."""
        return dict(self._of)

    def of(self, name: str, version: str) -> ModelStatistics:
        """Those of one version of one model, from its first mention on."""
        return self._of.setdefault((name, version), ModelStatistics())

    def remove(self, name: str, version: str) -> None:
        """Forget those of a model that is unloaded; one that is not there is no mistake."""
        self._of.pop((name, version), None)

    def watch(self, name: str, version: str, depth: Callable[[], int], limit: int) -> "_Recorder":
        """See `BatchObserver`."""
        return _Recorder(self.of(name, version), self._observer.watch(name, version, depth, limit))


class _Recorder:
    def __init__(self, statistics: ModelStatistics, recorder: BatchRecorder) -> None:
        self._statistics = statistics
        self._recorder = recorder

    def record(self, report: BatchReport) -> None:
        if not report.has_failed:
            self._statistics.ran(report.rows, report.compute_s)
        self._recorder.record(report)

    def close(self) -> None:
        self._recorder.close()


def _duration(count: float, seconds: float) -> dict[str, int]:
    return {"count": int(count), "ns": round(1e9 * seconds)}
