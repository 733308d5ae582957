"""Hears of each run of a model, probes it when in doubt, tells when its health changes; `health.py` decides.

    batcher ── each run ──> Monitor ──> the observer (metrics)
                              └──> Health ── due ──> a timer ──> probe, through the same batcher

A probe is a run like any other in the metrics of batches, since it takes the engine's time; it is no HTTP request.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Any, Protocol

from redserve.batching import Answer, BatchObserver, BatchReport
from redserve.batching.observer import GuardedRecorder
from redserve.errors import ModelError, RedserveError
from redserve.models.health import Health

MAX_ERROR_CHARACTERS = 400
"""What an engine says of its failure may be of any length."""


class Patient(Protocol):
    """Whom a monitor watches."""

    @property
    def is_stalled(self) -> bool:
        """Whether every instance hangs in calls that were given up."""

    def probe(self, answer: Callable[[Answer[Any]], None]) -> None:
        """Run what is known to run; `answer` is called once, on the loop.

        Raises:
            RedserveError: It cannot be queued now.
        """


class Monitor:
    """Watches one model for as long as its batcher lives: the batcher's observer, and its recorder.

    Args:
        patient: The model.
        can_probe: Whether `patient.probe` may be called at all.
        changed: Told why the model is unhealthy, or "" when it is not any more.
        observer: Told of each run too.
    """

    def __init__(
        self, patient: Patient, *, can_probe: bool, changed: Callable[[str], None], observer: BatchObserver | None
    ) -> None:
        self._patient = patient
        self._changed = changed
        self._observer = observer
        self._recorder: GuardedRecorder | None = None
        self._health = Health(can_probe=can_probe)
        self._told = ""
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = math.inf
        self._is_closed = False

    def watch(self, name: str, version: str, depth: Callable[[], int], limit: int) -> "Monitor":
        """See `BatchObserver`."""
        self._recorder = GuardedRecorder(self._observer, name=name, version=version, depth=depth, limit=limit)
        return self

    def record(self, report: BatchReport) -> None:
        """See `BatchRecorder`."""
        if self._recorder is not None:
            self._recorder.record(report)
        now_s = self._loop.time()
        self._health.run_ended(has_failed=report.has_failed, is_rerun=report.why == "split", now_s=now_s)
        if report.has_failed and self._patient.is_stalled:
            self._health.stalled(now_s=now_s)
        self._follow()

    def close(self) -> None:
        """See `BatchRecorder`: watch no more."""
        self._is_closed = True
        self._disarm()
        if self._recorder is not None:
            self._recorder.close()

    def _check(self) -> None:
        self._disarm()
        if self._health.check(is_stalled=self._patient.is_stalled, now_s=self._loop.time()):
            try:
                self._patient.probe(self._probed)
            except RedserveError:  # no room in the queue: another time
                self._health.probe_ended(error=None, now_s=self._loop.time())
        self._follow()

    def _probed(self, answer: Answer[Any]) -> None:
        error = None
        if isinstance(answer.error, ModelError):
            error = " ".join(str(answer.error).split())[:MAX_ERROR_CHARACTERS]
        self._health.probe_ended(error=error, now_s=self._loop.time())
        self._follow()

    def _follow(self) -> None:
        """Tell what has changed, and set the timer to what is due."""
        health = self._health
        if health.due_s != self._timer_s and not self._is_closed:
            self._disarm()
            if health.due_s != math.inf:
                self._timer_s = health.due_s
                self._timer = self._loop.call_at(health.due_s, self._check)
        if health.reason != self._told:
            self._told = health.reason
            self._changed(health.reason)

    def _disarm(self) -> None:
        self._timer_s = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
