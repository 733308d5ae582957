"""How one model is served."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redserve.batching import BatchPolicy
from redserve.engine.buckets import BatchBuckets
from redserve.engine.lengths import LengthBuckets


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How a model is served.

    Attributes:
        max_batch_size: Rows run together, at most; `None` takes the measured best.
        policy: The other numbers of batching; its `max_batch_size` is replaced by the one above.
        finite: Refuse rows that hold NaN or infinity; `None` leaves it to the wire format of the request.
        max_run_s: A batch that runs longer is cut off; `None` waits for ever.
        instances: Engines that run batches side by side, fed by one queue.
        timeout_s: Budget of a request that names none; `None` is the server's.
        labels: Names of the classes of an output, by the output's name.
        inline_below_s: Run batches on the event loop itself where the largest usually takes less and the engine
            allows it; `None`: never.
        sample: One row that is known to run, as (nested) lists by input; `None` makes one up.
        lengths: Rows of different lengths that share a batch; `None`: rows of equal length do.
        slots: Batches that one engine has in progress at once; `None`: as many as the engine says.
        batch_buckets: The sizes that batches are padded to.
    """

    max_batch_size: int | None = None
    policy: BatchPolicy = field(default_factory=BatchPolicy)
    finite: bool | None = None
    max_run_s: float | None = 60.0
    instances: int = 1
    inline_below_s: float | None = None
    timeout_s: float | None = None
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sample: Mapping[str, Any] | None = None
    lengths: LengthBuckets | None = None
    slots: int | None = None
    batch_buckets: BatchBuckets = "auto"

    def __post_init__(self) -> None:
        if self.max_batch_size is not None and self.max_batch_size < 1:
            raise ValueError(f"max_batch_size must be >= 1, got {self.max_batch_size}")
        if self.instances < 1:
            raise ValueError(f"instances must be >= 1, got {self.instances}")
        if self.slots is not None and self.slots < 1:
            raise ValueError(f"slots must be >= 1, got {self.slots}")
