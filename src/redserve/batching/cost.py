"""What a batch costs before its first row: learned from the batches that ran."""

_DECAY = 0.98  # a batch counts half after 34 more
_MIN_VARIANCE = 0.1  # of the rows; below it the slope is noise


class FixedCost:
    """Fits `seconds = fixed + per_row * rows` to recent batches: least squares, the past decaying."""

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
