"""Which rate to try next, and where the knee is: pure, told what became of each rate.

    double the rate until the SLO breaks ─ halve the gap, as a ratio, until it is small ─> the knee

A rate is broken only when it breaks twice in a row, since one bad second of a machine would else be the result.
"""

import math

_PRECISION = 1.05
_LOWEST_PER_S = 0.1
_MOST_TRIALS = 40


def per_s(rate_per_s: float) -> str:
    """Like `3.5/s` or `11,236/s`."""
    return f"{rate_per_s:,.0f}/s" if rate_per_s >= 1000 else f"{rate_per_s:.4g}/s"


class SweepPlan:
    """The search for the highest rate that keeps the SLO.

    Attributes:
        knee_per_s: The highest one that did so far; `None` when none did.
        ended_because: Why there is nothing more to try; empty while there is.
    """

    def __init__(self, first_per_s: float) -> None:
        if not (first_per_s > 0 and math.isfinite(first_per_s)):
            raise ValueError(f"a sweep begins with a rate > 0, got {first_per_s}")
        self._next_per_s = first_per_s
        self._broken_per_s = math.inf
        self._broken_because = ""
        self._is_second_try = False
        self._trials = 0
        self.knee_per_s: float | None = None
        self.ended_because = ""

    def next_rate_per_s(self) -> float | None:
        """What to try now; `None` when the knee is found."""
        return None if self.ended_because else self._next_per_s

    def tell(self, *, is_within_slo: bool, kept_rate: bool = True) -> None:
        """What became of the rate that `next_rate_per_s` named.

        Args:
            is_within_slo: It kept the SLO.
            kept_rate: The sender kept the rate; where it did not, the server may do better than this.
        """
        self._trials += 1
        if not is_within_slo and not self._is_second_try:
            self._is_second_try = True
            return
        self._is_second_try = False
        if is_within_slo:
            self.knee_per_s = self._next_per_s
        else:
            self._broken_per_s = self._next_per_s
            broken = f"the SLO breaks at {per_s(self._broken_per_s)}"
            self._broken_because = broken if kept_rate else f"{broken}, where the sender itself could not keep the rate"
        self._choose()

    def give_up(self, because: str) -> None:
        """Nothing more can be tried."""
        self.ended_because = because

    def _choose(self) -> None:
        knee, broken = self.knee_per_s, self._broken_per_s
        if knee is None:
            self._next_per_s = broken / 2
            if self._next_per_s < _LOWEST_PER_S:
                self.ended_because = "the SLO is not kept at any rate"
        elif math.isinf(broken):
            self._next_per_s = 2 * knee
        else:
            self._next_per_s = math.sqrt(knee * broken)
            if broken <= _PRECISION * knee:
                self.ended_because = self._broken_because
        if self._trials >= _MOST_TRIALS and not self.ended_because:
            self.ended_because = f"{_MOST_TRIALS} runs were made"
