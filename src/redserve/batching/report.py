"""What is told of one run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class BatchReport:
    """One run of the function, whether it succeeded or not.

    Attributes:
        rows: That ran together.
        why: What started it: `full`, `idle`, `linger`, `delay` (see `Batch`), or `split`: part of a batch that failed,
            run again.
        waits_s: How long each of its requests was queued; empty for a `split`, whose requests are reported already.
        compute_s: What the function took.
        has_failed: Nobody in it has a result: the function raised, broke its contract or was given up.
        padded_rows: That ran beside them for the sake of the size, see `BatchPolicy.batch_sizes`.
    """

    rows: int
    why: str
    waits_s: Sequence[float]
    compute_s: float
    has_failed: bool
    padded_rows: int = 0

    def __reduce__(self) -> tuple[type["BatchReport"], tuple[object, ...]]:
        """For `copy` and `pickle`, which know nothing of the fields where this is compiled."""
        values = (self.rows, self.why, self.waits_s, self.compute_s, self.has_failed, self.padded_rows)
        return BatchReport, values
