"""When a batch closes, and when a request is turned away."""

import math
from dataclasses import dataclass
from operator import index


@dataclass(frozen=True, kw_only=True)
class BatchPolicy:
    """The numbers of dynamic batching; the defaults serve.

    Attributes:
        max_batch_size: Rows run together, at most; >= 1.
        max_queue_delay_s: Longest the oldest request waits for company while an engine is idle, counted from its
            arrival; 0 runs whatever is there.
        max_queue_rows: Rows that may wait; a request that would exceed them is shed.
        max_queue_bytes: Bytes that may wait, as the callers declare them.
        max_reruns: Runs spent, at most, on finding which requests of a failed batch are at fault; 0 fails it whole.
            Any three of 128 take 36 (all cases counted).
        slo_s: By when a request is to be answered that brings no deadline of its own, counted from its arrival; who
            would be later is refused, and who gets too late is not run. `None`: whenever it comes.
        linger: Whether an engine that has just finished may wait up to 0.5 ms for the clients it has just answered,
            where that has paid before, and whether a batch on the loop lets others that wait for its core run first.
            Not for async functions. A served model without it starts no batch later for a quiet loop either.
        batch_sizes: The sizes that the function really runs, ascending, the last of them `max_batch_size`: it pads a
            batch up to the next one, and its answer lacks what it padded. Empty: it runs what it is given.

    Numbers of numpy, and any sequence of sizes, become Python's.

    Raises:
        TypeError: A number that counts is not whole.
        ValueError: A number is out of its range.
    """

    max_batch_size: int = 32
    max_queue_delay_s: float = 0.0
    max_queue_rows: int = 1024
    max_queue_bytes: int = 256 * 1024 * 1024
    max_reruns: int = 36
    slo_s: float | None = None
    linger: bool = True
    batch_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "max_queue_rows", "max_queue_bytes", "max_reruns"):
            object.__setattr__(self, name, index(getattr(self, name)))
        object.__setattr__(self, "batch_sizes", tuple(map(index, self.batch_sizes)))
        for name in ("max_batch_size", "max_queue_rows", "max_queue_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if not 0 <= self.max_queue_delay_s < math.inf:
            raise ValueError(f"max_queue_delay_s must be >= 0 and finite, got {self.max_queue_delay_s}")
        if self.max_reruns < 0:
            raise ValueError(f"max_reruns must be >= 0, got {self.max_reruns}")
        if self.slo_s is not None and not 0 < self.slo_s < math.inf:
            raise ValueError(f"slo_s must be positive and finite, got {self.slo_s}")
        sizes = self.batch_sizes
        if sizes and (sizes[0] < 1 or sizes[-1] != self.max_batch_size or sorted({*sizes}) != [*sizes]):
            raise ValueError(f"batch_sizes must ascend from 1 or more to max_batch_size, got {sizes}")
        object.__setattr__(self, "max_queue_delay_s", float(self.max_queue_delay_s))
        object.__setattr__(self, "slo_s", None if self.slo_s is None else float(self.slo_s))
        object.__setattr__(self, "linger", bool(self.linger))
