"""Whether an engine that has just finished waits a moment for the clients it has just answered: pure, told the time.

N clients that each send the next request when the last is answered come in two halves: while one half runs the other
waits, and a greedy engine takes the waiting half just before the answered one is back. Waiting out the way to the
client and back merges the halves.

    completed ──> a window of `wait` seconds ──> arrived, arrived, ... ──> the mean number a window brings
                                              ──> linger_s: wait now? only where it saves more than it costs
"""

_MAX_WAIT_S = 0.0005
_FIXED_COST_SHARE = 0.1
_SMOOTHING = 0.2  # weight of the newest window
_MARGIN = 3.0  # saved over lost; at 1, Poisson arrivals pay twice what the tests allow, for chance alone
_DECAY = 0.98  # of what a batch says about costs: half after 34 more
_MIN_VARIANCE = 0.1  # of the rows; below it the slope is noise


class LingerGate:
    """Decides after each batch, from what the windows after earlier batches brought."""

    def __init__(self) -> None:
        self._fixed_cost = FixedCost()
        self._wait_s = 0.0
        self._window_ends_s = 0.0
        self._arrived = 0
        self._mean_arrived = 0.0

    def arrived(self, *, now_s: float) -> None:
        """A request came."""
        if now_s < self._window_ends_s:
            self._arrived += 1

    def completed(self, *, rows: int, seconds: float, now_s: float) -> None:
        """A batch of `rows` ended after `seconds`: the window opens in which its clients may come back."""
        self._mean_arrived += _SMOOTHING * (self._arrived - self._mean_arrived)
        self._arrived = 0
        self._fixed_cost.observe(rows=rows, seconds=seconds)
        self._wait_s = min(_MAX_WAIT_S, _FIXED_COST_SHARE * self._fixed_cost.estimate_s())
        self._window_ends_s = now_s + self._wait_s

    def linger_s(self, *, answered: int, waiting: int) -> float:
        """How long to wait after the batch that just ended, for company of the `waiting` requests; 0 is not at all.

        It pays when the fixed cost saved for those who join well exceeds the time lost by those who wait; with
        nobody waiting, the first to come waits for the others. A lone client (`answered` and `waiting` make one) has
        nobody to wait for.
        """
        if answered + waiting < 2:
            return 0.0
        joining = self._mean_arrived - (1 if waiting == 0 else 0)
        is_worth_it = joining * self._fixed_cost.estimate_s() > _MARGIN * max(waiting, 1) * self._wait_s
        return self._wait_s if is_worth_it else 0.0


class FixedCost:
    """What a batch costs before its first row.

    Fits `seconds = fixed + per_row * rows` to recent batches: least squares, the past decaying.
    """

    def __init__(self) -> None:
        self._weight = 0.0
        self._rows = 0.0
        self._rows2 = 0.0
        self._seconds = 0.0
        self._rows_seconds = 0.0

    def observe(self, *, rows: int, seconds: float) -> None:
        """Learn that a batch of `rows` took `seconds`."""
        self._weight = self._weight * _DECAY + 1.0
        self._rows = self._rows * _DECAY + rows
        self._rows2 = self._rows2 * _DECAY + rows * rows
        self._seconds = self._seconds * _DECAY + seconds
        self._rows_seconds = self._rows_seconds * _DECAY + rows * seconds

    def estimate_s(self) -> float:
        """The fixed cost, between 0 and the mean time of a batch; 0 before the first.

        While all batches have one size nothing says that rows cost anything: the estimate is their mean time.
        """
        if not self._weight:
            return 0.0
        mean_rows = self._rows / self._weight
        mean_s = self._seconds / self._weight
        variance = self._rows2 / self._weight - mean_rows * mean_rows
        if variance < _MIN_VARIANCE:
            return mean_s
        per_row_s = (self._rows_seconds / self._weight - mean_rows * mean_s) / variance
        return min(max(mean_s - per_row_s * mean_rows, 0.0), mean_s)
