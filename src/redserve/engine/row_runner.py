"""Many requests in, one run, many results out: the function a batcher calls, one for each engine instance.

    requests ─ gather into a kept buffer ─ (pad) ─ engine.run ─ count rows ─ cut ─> one list of views per request

One copy a request and input, into memory that is written again for the next batch; a request that is alone is fed from
its own memory. Results are views of the batch's outputs, which live as long as any of them. Where requests of different
lengths share a batch, they are padded to the longest of them; see `lengths.py`.

A call takes its buffers out of those that are kept and puts them back when it has run, so one that hangs and is given
up shares no memory with the calls after it.
"""

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import final

import numpy as np

from redserve.engine.base import Engine
from redserve.engine.lengths import Lengths
from redserve.engine.outputs import check_outputs
from redserve.engine.tensors import Array, Tensors, group_of, join_rows
from redserve.errors import ModelError


@final
class RowRunner:
    """Runs batches on one engine, as its `Batchability` allows.

    One thread at a time, except that a call which hangs may be given up: another thread then calls while the hung call
    is still in it, and only the newer results mean anything.

    Args:
        engine: What runs; may be shared by several runners if it bears concurrent runs.
        max_batch_size: Rows the kept buffers have room for.
        sizes: The only sizes that run, if they are few, ascending to `max_batch_size`; batches are padded to them.
        max_groups: Shape groups whose buffers are kept, the least recently used going first.
        lengths: Where requests of different lengths share a batch.
    """

    def __init__(
        self,
        engine: Engine,
        max_batch_size: int,
        *,
        sizes: Sequence[int] = (),
        max_groups: int = 8,
        lengths: Lengths | None = None,
    ) -> None:
        if max_batch_size < 1:
            raise ValueError(f"max_batch_size must be >= 1, got {max_batch_size}")
        if max_groups < 1:
            raise ValueError(f"max_groups must be >= 1, got {max_groups}")
        self._engine = engine
        self._mode = engine.batchability.mode
        self._rows_per_run = engine.batchability.rows
        self._sizes = sizes
        self._empty = getattr(engine, "empty", np.empty)
        self._names = tuple(spec.name for spec in engine.inputs)
        self._outputs = tuple(engine.outputs)
        self._lengths = lengths
        step = self._rows_per_run or 1
        self._capacity_rows = -(-max_batch_size // step) * step
        self._max_groups = max_groups
        self._kept: dict[Hashable, dict[str, Array]] = {}  # buffers that no call is using
        self._thread_id = 0  # of the call that runs; 0: none
        self._interrupted_thread_ids: set[int] = set()

    def __call__(self, requests: Sequence[Tensors]) -> list[list[Array] | Exception]:
        """Run checked requests of one shape group, together `max_batch_size` rows at most.

        Returns:
            One item per request: one array per output, axis 0 as long as the request's; where requests run alone
            (mode `whole`), the exception of one that failed stands in its place.

        Raises:
            WrongResultCount: An output's axis 0 is not the batch's rows.
            ModelError: The run failed, or its answer is not what the engine promises.
        """
        thread_id = self._thread_id = threading.get_ident()
        self._interrupted_thread_ids.discard(thread_id)
        try:
            if self._mode == "whole":
                return [self._run_alone(request) for request in requests]
            return self._run_together(requests)
        finally:
            if self._thread_id == thread_id:  # else this call was given up, and another thread runs now
                self._thread_id = 0

    def interrupt(self) -> None:
        """Make the batch in progress end soon, with an error; from any other thread."""
        thread_id = self._thread_id
        if thread_id:
            self._interrupted_thread_ids.add(thread_id)
            self._engine.interrupt(thread_id)

    def _run_alone(self, request: Tensors) -> list[Array] | Exception:
        try:
            return self._run({name: np.asarray(request[name], order="C") for name in self._names}, rows=None)
        except Exception as error:
            return error

    def _run_together(self, requests: Sequence[Tensors]) -> list[list[Array] | Exception]:
        first_name = self._names[0]
        row_counts = [len(request[first_name]) for request in requests]
        rows = sum(row_counts)
        step = self._rows_per_run or (self._padded(rows) if self._sizes else rows)
        if len(requests) == 1 and rows == step:
            request = requests[0]
            return [self._run({name: np.ascontiguousarray(request[name]) for name in self._names}, rows=rows)]
        lengths = self._lengths
        group = group_of(requests[0]) if lengths is None else lengths.group_of(requests[0])
        buffers = self._kept.pop(group, None) or self._new_buffers(requests[0])
        own_lengths, inputs = None, buffers
        if lengths is not None:
            own_lengths = [lengths.of(request) for request in requests]
            inputs = lengths.views(buffers, max(own_lengths))
        for name, tensor in inputs.items():
            if lengths is not None and name in lengths.inputs:
                lengths.pad(requests, name, tensor)
            else:
                np.concatenate([request[name] for request in requests], out=tensor[:rows])
            tensor[rows : -(-rows // step) * step] = tensor[rows - 1]
        try:
            parts = [
                self._run_buffered({name: tensor[start : start + step] for name, tensor in inputs.items()}, step)
                for start in range(0, rows, step)
            ]
        finally:
            self._keep(group, buffers)
        outputs = join_rows(parts)
        results: list[list[Array] | Exception] = []
        start = 0
        for place, count in enumerate(row_counts):
            own = [output[start : start + count] for output in outputs]
            results.append(own if lengths is None or own_lengths is None else lengths.cut(own, own_lengths[place]))
            start += count
        return results

    def _padded(self, rows: int) -> int:
        return next((size for size in self._sizes if size >= rows), rows)

    def _new_buffers(self, request: Tensors) -> dict[str, Array]:
        """Room for a full batch of the largest rows that the group of `request` may have."""
        shapes = {name: request[name].shape[1:] for name in self._names}
        if self._lengths is not None:
            shapes |= self._lengths.largest_rows(request)
        return {name: self._empty((self._capacity_rows, *shape), request[name].dtype) for name, shape in shapes.items()}

    def _keep(self, group: Hashable, buffers: dict[str, Array]) -> None:
        """For the next batch of the group. A call that was given up in between keeps nothing: another one runs."""
        if self._thread_id == threading.get_ident():
            self._kept[group] = buffers
            if len(self._kept) > self._max_groups:
                del self._kept[next(iter(self._kept))]

    def _run_buffered(self, inputs: Tensors, rows: int) -> list[Array]:
        """An output that shares the buffers' memory would change under its clients' eyes with the next batch."""
        outputs = self._run(inputs, rows=rows)
        return [
            output.copy() if any(np.may_share_memory(output, tensor) for tensor in inputs.values()) else output
            for output in outputs
        ]

    def _run(self, inputs: Tensors, *, rows: int | None) -> list[Array]:
        if threading.get_ident() in self._interrupted_thread_ids:
            raise ModelError("the run was interrupted")
        run: Callable[[Tensors], object] = self._engine.run  # what is no list is `check_outputs`'s business
        return check_outputs(self._outputs, run(inputs), rows=rows)
