"""What runs one batch: the seam between the batcher and any model runtime.

list of requests ─ RowRunner ─> one dict of arrays ─ Engine.run ─> one array per output ─ RowRunner ─> results
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import Literal, Protocol

from redserve.engine.tensors import Array, Tensors, TensorSpec


@dataclass(frozen=True, kw_only=True)
class Batchability:
    """Whether requests may share a run, and why.

    Attributes:
        mode: `dynamic` runs any number of rows, `fixed` exactly `rows` rows (requests are padded up to it, or run
            row by row), `whole` has no rows: each request runs as it came, alone.
        reason: One sentence for people.
        rows: Of every run, in mode `fixed`; else `None`.
        note: What to know all the same, such as answers that change with their batch mates; or empty.
    """

    mode: Literal["dynamic", "fixed", "whole"]
    reason: str
    rows: int | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if (self.mode == "fixed") != (self.rows is not None):
            raise ValueError(f"rows belong to mode fixed, got {self.rows} in mode {self.mode}")
        if self.rows is not None:
            if self.rows < 1:
                raise ValueError(f"rows must be >= 1, got {self.rows}")
            object.__setattr__(self, "rows", index(self.rows))  # which may be numpy's

    @property
    def is_row_wise(self) -> bool:
        """Axis 0 of every input and output counts rows."""
        return self.mode != "whole"


class Engine(Protocol):
    """A loaded model. `run` and `interrupt` may be called from several threads at once.

    One whose runs take as long as those of the warm-up, whatever the values, and end soon after `interrupt`, may have
    an attribute `can_run_inline` that is true: then short runs are made on the event loop itself. One whose runs take
    all of the few cores that the loop has too may have `shares_cores` that is true: then a batch starts once the loop
    is quiet. One that computes in the thread that calls it, and in no more than `intra_op_threads` with that, may have
    `computes_in_caller` that is true: then busy processes beside it are left out of what a batch is said to take. One
    on a GPU may have `is_on_gpu`, that is true; `slots`, the runs that are worth having in progress at once; and
    `empty(shape, dtype)`, which makes the arrays that batches are gathered in.
    """

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """What `run` is given."""
        ...

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """What `run` answers, in this order."""
        ...

    @property
    def batchability(self) -> Batchability:
        """How `RowRunner` may fill a run."""
        ...

    @property
    def provider(self) -> str:
        """What the model really runs on, for people and for the info metric: `CPUExecutionProvider`."""
        ...

    def run(self, tensors: Tensors) -> list[Array]:
        """Run one batch to its end; blocks.

        Args:
            tensors: Exactly the inputs, C-contiguous and checked. Their memory is written again after the call, so
                results must not share it.

        Returns:
            One array per output, in the order of `outputs`; never written again by the engine.

        Raises:
            ModelError: The run failed or was interrupted.
        """
        ...

    def interrupt(self, thread_id: int | None = None) -> None:
        """Make the run in progress in that thread (`threading.get_ident()`; `None`: every run) end soon, with an error.

        The engine stays usable; without a run in progress nothing happens.
        """
        ...

    def close(self) -> None:
        """Let go of the model; no run may follow."""
        ...
