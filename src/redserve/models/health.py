"""Whether a model works, judged by how its runs went: pure, told the time.

    healthy ── 3 failed runs in a row ──> in doubt: probe ── fails ──> unhealthy ── probe in 1, 2, 4, 8, 10, 10, ... s
      ^                                    │                            │
      └────────────────────────────────────┴─── any run succeeds ───────┘

A client may send what makes a model fail, so failed runs alone prove nothing; that a row which is known to run (the
probe) fails as well does. Where no such row is known, failed runs have to do; since a model that is not ready may get
no traffic that could cure it, it is then ready again after a pause, on trial: one more failed run, and the next pause
is longer.
"""

import math

FAILED_RUNS = 3
"""In a row, none of which gave anybody a result, cast doubt on a model."""

FIRST_PAUSE_S = 1.0
"""Between probes; doubled by each that fails. A model that clients make fail is not probed more often than this."""

LONGEST_PAUSE_S = 10.0


class Health:
    """What is known of one model.

    Args:
        can_probe: Whether a row is known to run.

    Attributes:
        reason: Why it is unhealthy, in words; empty while it is healthy or only in doubt.
        due_s: When to `check`; `inf` is never.
    """

    def __init__(self, *, can_probe: bool) -> None:
        self.reason = ""
        self.due_s = math.inf
        self._can_probe = can_probe
        self._is_probing = False
        self._next_probe_s = -math.inf
        self._failed_runs = 0
        self._pause_s = FIRST_PAUSE_S

    def run_ended(self, *, has_failed: bool, is_rerun: bool, now_s: float) -> None:
        """A run has ended, a probe's included.

        Args:
            has_failed: Nobody in it has a result.
            is_rerun: It was part of a batch that had failed: no further failure, but perhaps the cure.
            now_s: The time.
        """
        if not has_failed:
            self.reason, self.due_s = "", math.inf
            self._failed_runs, self._pause_s = 0, FIRST_PAUSE_S
        elif not is_rerun:
            self._failed_runs += 1
            is_arranged = self._is_probing or self.due_s != math.inf
            if self._failed_runs >= FAILED_RUNS and not is_arranged:
                if self._can_probe:
                    self.due_s = max(now_s, self._next_probe_s)
                else:
                    self._found_unhealthy(f"the last {self._failed_runs} runs failed", now_s)

    def stalled(self, *, now_s: float) -> None:
        """Every instance hangs in a run that was given up: nothing can run until one comes back."""
        self.reason = "every instance hangs in a run that was given up"
        self.due_s = now_s + FIRST_PAUSE_S

    def check(self, *, is_stalled: bool, now_s: float) -> bool:
        """What is to be done at `due_s`.

        Returns:
            Whether to run the probe now; `probe_ended` is told how it went.
        """
        self.due_s = math.inf
        if is_stalled:
            self.stalled(now_s=now_s)
        elif self._can_probe:
            self._is_probing = True
            self._next_probe_s = now_s + FIRST_PAUSE_S
            return True
        else:
            self.reason = ""
            self._failed_runs = FAILED_RUNS - 1
        return False

    def probe_ended(self, *, error: str | None, now_s: float) -> None:
        """The probe has an answer.

        Args:
            error: What the model failed with; `None`: it ran well, which `run_ended` was told, or did not get to run.
            now_s: The time.
        """
        self._is_probing = False
        is_answered = self._failed_runs < FAILED_RUNS and not self.reason  # by a run that succeeded meanwhile
        if is_answered or self.due_s != math.inf:  # or every instance hangs by now
            return
        if error is None:
            self.due_s = now_s + FIRST_PAUSE_S
        else:
            self._found_unhealthy(f"the last {self._failed_runs} runs failed, a probe among them: {error}", now_s)

    def _found_unhealthy(self, reason: str, now_s: float) -> None:
        self.reason = reason
        self.due_s = now_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
