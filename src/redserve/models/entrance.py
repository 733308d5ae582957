"""The way into one model that is loaded: what each of its requests passes.

infer(tensors) ──> check, group ──> Intake.submit: its batcher's queue
"""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import final

from redserve.batching import Answer, Ticket
from redserve.batching.intake import Intake
from redserve.engine.lengths import Lengths
from redserve.engine.tensors import Array, Tensors, TensorSpec, check_tensors, group_of, size_bytes_of
from redserve.errors import ShuttingDown, TooManyRows


@final
class Entrance:
    """Takes requests for one model, on the event loop, until it is closed.

    Args:
        intake: Its batcher's.
        inputs: What the model takes.
        is_row_wise: Whether axis 0 of each input is its rows.
        finite: What the model's options say of NaN and infinity; `None` leaves it to each request.
        max_queue_rows: Rows that may wait.
        lengths: Which rows of different lengths share a batch; `None`: none do.
    """

    def __init__(
        self,
        intake: Intake[Tensors, list[Array]],
        inputs: Sequence[TensorSpec],
        *,
        is_row_wise: bool,
        finite: bool | None,
        max_queue_rows: int,
        lengths: Lengths | None,
    ) -> None:
        self._intake: Intake[Tensors, list[Array]] | None = intake
        self._inputs = inputs
        self._is_row_wise = is_row_wise
        self._finite = finite
        self._max_queue_rows = max_queue_rows
        self._lengths = lengths

    def infer(
        self,
        tensors: Tensors,
        answer: Callable[[Answer[list[Array]]], None],
        *,
        deadline_s: float = math.inf,
        finite: bool = True,
        is_checked: bool = False,
    ) -> Ticket:
        """See `ServedModel.infer`."""
        if self._intake is None:
            raise ShuttingDown
        group: Hashable
        if is_checked:
            (tensor,) = tensors.values()
            rows, size_bytes, group = len(tensor), tensor.nbytes, tensor.shape[1:]
        else:
            if self._finite is not None:
                finite = self._finite
            rows = check_tensors(self._inputs, tensors, row_wise=self._is_row_wise, finite=finite)
            size_bytes, group = size_bytes_of(tensors), group_of(tensors)
        if rows > self._max_queue_rows:
            raise TooManyRows(rows, limit=self._max_queue_rows)
        if self._lengths is not None:
            group = self._lengths.group_of(tensors)
        return self._intake.submit(tensors, answer, rows, group, size_bytes, deadline_s)

    def close(self) -> None:
        """Take no more, and let go of the batcher and its engines."""
        self._intake = None
