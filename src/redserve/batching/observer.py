"""What a batcher tells of each run, and to whom: `metrics.BatchMetrics` fits these shapes without being imported."""

import logging
from collections.abc import Callable
from typing import Protocol

from redserve.batching.report import BatchReport

_log = logging.getLogger("redserve.batching")


class BatchRecorder(Protocol):
    """Records the runs of one batcher; called on the event loop only."""

    def record(self, report: BatchReport, /) -> None:
        """A run has ended."""

    def close(self) -> None:
        """The batcher is closed; its depth is not to be read any more."""


class BatchObserver(Protocol):
    """Makes a recorder for each batcher."""

    def watch(self, name: str, version: str, depth: Callable[[], int], limit: int, /) -> BatchRecorder:
        """Begin to observe a batcher.

        Args:
            name: Of the model or the function.
            version: Of the model; may be empty.
            depth: Rows queued now; cheap, callable from any thread.
            limit: Rows that may be queued.
        """


class GuardedRecorder:
    """A recorder that never fails a request: what an observer raises is logged, the first time."""

    def __init__(
        self, observer: BatchObserver | None, *, name: str, version: str, depth: Callable[[], int], limit: int
    ) -> None:
        self._name = name
        self._has_failed = False
        self._recorder: BatchRecorder | None = None
        if observer is not None:
            try:
                self._recorder = observer.watch(name, version, depth, limit)
            except Exception:
                self._log_failure()

    def record(self, report: BatchReport) -> None:
        """Pass `report` on."""
        if self._recorder is not None:
            try:
                self._recorder.record(report)
            except Exception:
                self._log_failure()

    def close(self) -> None:
        """Close the recorder, once."""
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            try:
                recorder.close()
            except Exception:
                self._log_failure()

    def _log_failure(self) -> None:
        if not self._has_failed:
            self._has_failed = True
            _log.exception("batch observer failed", extra={"batcher": self._name})
