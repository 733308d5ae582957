"""What runs together."""

from dataclasses import dataclass
from typing import Generic

from redserve.batching.waiting import W


@dataclass(frozen=True, slots=True)
class Batch(Generic[W]):
    """What runs together, first come first.

    Attributes:
        requests: At least one, all of one group.
        rows: Of all of them.
        why: `full` (no room for the next row), `delay` (the oldest has waited long enough), `linger` (an engine had
            waited for it after its last batch) or `idle` (an engine was free).
    """

    requests: list[W]
    rows: int
    why: str
