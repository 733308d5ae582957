"""Which batch sizes run, where a new one costs extra: few, each measured and warm before the first request.

asked for ─ GPU? rows independent? ─> sizes, the largest batch the last ─> curve, warm-up, RowRunner pads to them

On a GPU a size that is new takes memory, a search for algorithms, and with CUDA graphs or TensorRT is no size at all.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from redserve.engine.base import Engine
from redserve.errors import ModelLoadError

BatchBuckets: TypeAlias = Literal["auto", "on", "off"] | tuple[int, ...]
"""`on`: powers of two; `auto`: those on a GPU, none elsewhere; or the sizes themselves."""


def sizes_up_to(max_batch_size: int, asked: Sequence[int] = ()) -> tuple[int, ...]:
    """Those asked for, or the powers of two, below the largest batch, and that."""
    wanted = asked or [2**power for power in range(max_batch_size.bit_length())]
    return (*sorted({size for size in wanted if size < max_batch_size}), max_batch_size)


def takes_buckets(engine: Engine, asked: BatchBuckets) -> bool:
    """Whether the engine's batches are to be padded.

    Raises:
        ModelLoadError: They are, and would change answers.
    """
    is_wanted = getattr(engine, "is_on_gpu", False) if asked == "auto" else asked != "off"
    batchability = engine.batchability
    if not is_wanted or batchability.mode == "fixed":  # which is padded as it is
        return False
    obstacle = batchability.reason if batchability.mode == "whole" else batchability.note
    if obstacle and asked != "auto":
        raise ModelLoadError(f"batch_buckets: rows may not be padded: {obstacle}")
    return not obstacle
