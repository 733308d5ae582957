"""What padding costs and what sharing a batch brings, measured bucket by bucket; it also makes the buckets warm."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from redserve.engine.base import Engine
from redserve.engine.lengths import Lengths
from redserve.engine.tensors import Tensors

_RUNS = 5


@dataclass(frozen=True, kw_only=True)
class PaddingCost:
    """What sharing a batch costs and brings in one bucket; seconds.

    Attributes:
        shortest: The shortest row that was tried: see `LengthBuckets.ends`.
        longest: The longest row of the bucket.
        shortest_alone_s: One row of the one length, by itself.
        longest_alone_s: One row of the other, by itself.
        batch_rows: Rows of a batch.
        batch_s: A batch of the longest.
    """

    shortest: int
    longest: int
    shortest_alone_s: float
    longest_alone_s: float
    batch_rows: int
    batch_s: float

    @property
    def row_s(self) -> float:
        """What a row of a full batch costs at worst."""
        return self.batch_s / self.batch_rows

    @property
    def worst_ratio(self) -> float:
        """What the shortest row costs when it is padded to the longest, in a full batch, of what it costs alone."""
        return self.row_s / self.shortest_alone_s


def measure_padding(
    engine: Engine,
    lengths: Lengths,
    max_batch_size: int,
    *,
    row: Tensors,
    budget_s: float = 4.0,
    clock: Callable[[], float] = time.perf_counter,
) -> list[PaddingCost]:
    """Time each bucket; blocks.

    Args:
        engine: Whose model it is.
        lengths: As judged.
        max_batch_size: Rows of a batch.
        row: One row that is known to run.
        budget_s: After so long each size is timed once only.
        clock: Seconds.

    Raises:
        ModelError: A size failed.
    """
    deadline_s = clock() + budget_s

    def median_s(length: int, rows: int) -> float:
        rows = engine.batchability.rows or rows
        batch = {name: np.repeat(tensor, rows, axis=0) for name, tensor in lengths.stretch(row, length).items()}
        engine.run(batch)  # the first run of a shape also allocates
        times_s: list[float] = []
        while not times_s or (len(times_s) < _RUNS and clock() < deadline_s):
            start_s = clock()
            engine.run(batch)
            times_s.append(clock() - start_s)
        return max(statistics.median(times_s), 1e-9)

    return [
        PaddingCost(
            shortest=shortest,
            longest=longest,
            batch_rows=max_batch_size,
            batch_s=median_s(longest, max_batch_size),
            longest_alone_s=median_s(longest, 1),
            shortest_alone_s=median_s(shortest, 1),
        )
        for shortest, longest in lengths.buckets.ends()
    ]
