"""How one model is served."""

from dataclasses import dataclass, field

from redserve.batching import BatchPolicy


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How a model is served.

    Attributes:
        max_batch_size: Rows run together, at most; `None` takes the measured best.
        policy: The other numbers of batching; its `max_batch_size` is replaced by the one above.
        finite: Refuse rows that hold NaN or infinity; `None` leaves it to the wire format of the request.
        max_run_s: A batch that runs longer is cut off; `None` waits for ever.
    """

    max_batch_size: int | None = None
    policy: BatchPolicy = field(default_factory=BatchPolicy)
    finite: bool | None = None
    max_run_s: float | None = 60.0

    def __post_init__(self) -> None:
        if self.max_batch_size is not None and self.max_batch_size < 1:
            raise ValueError(f"max_batch_size must be >= 1, got {self.max_batch_size}")
