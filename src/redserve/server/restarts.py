"""When a worker that died is replaced, and when that has no point any more: pure."""

SETTLED_S = 60.0
"""A worker that was ready for that long had started well."""

MOST_IN_A_ROW = 5
"""Deaths of workers that had not settled; one more, and the server ends."""

_FIRST_DELAY_S = 0.1


class Restarts:
    """Counts the deaths in a row.

    Attributes:
        in_a_row: Deaths of workers since one had settled.
    """

    def __init__(self) -> None:
        self.in_a_row = 0

    def died(self, *, ready_s: float) -> float | None:
        """A worker died that had been ready for `ready_s`: how long to wait before the next; `None` is to give up."""
        self.in_a_row = 1 if ready_s >= SETTLED_S else self.in_a_row + 1
        return _FIRST_DELAY_S * 2 ** (self.in_a_row - 1) if self.in_a_row <= MOST_IN_A_ROW else None
