"""Rows of different lengths in one batch: padded behind their end, masked there, their answers cut back.

    [7 2 5]          [7 2 5 0]   mask [1 1 1 0]          [a b c .] -> [a b c]
    [4 4 1 6]   ->   [4 4 1 6]        [1 1 1 1]   run    [d e f g] -> [d e f g]      both of one bucket, 3 to 4

A batch is padded to the longest of its rows, and one that needs none is not padded. Which rows meet is a matter of
buckets: as many lengths as a row may be padded by.
"""

from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np

from redserve.engine.tensors import Array, Tensors, group_of
from redserve.errors import BadRequest


@dataclass(frozen=True, kw_only=True)
class LengthBuckets:
    """Which lengths share a batch, as it is asked for.

    Attributes:
        sizes: The longest length of each bucket, ascending; a longer row shares a batch with its equals only.
        mask: The input that is 0 where a row is padded.
        must: Also where padding changes answers.
    """

    sizes: tuple[int, ...]
    mask: str = "attention_mask"
    must: bool = False

    def __post_init__(self) -> None:
        if not self.sizes or self.sizes[0] < 1 or any(one >= next_one for one, next_one in pairwise(self.sizes)):
            raise ValueError(
                f"the lengths of buckets ascend from 1 on, got {', '.join(map(str, self.sizes)) or 'none'}"
            )

    def ends(self) -> list[tuple[int, int]]:
        """The shortest and the longest length of each bucket, to try; of the first, half of its longest is enough."""
        shortest = [-(-self.sizes[0] // 2), *(size + 1 for size in self.sizes[:-1])]
        return list(zip(shortest, self.sizes, strict=True))


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Where a model has its length, and which lengths share a batch; `length_probe.py` finds out.

    Attributes:
        buckets: As asked for.
        inputs: The axis of the length, by the name of each input that has one.
        outputs: The axes of each output that have the length, in the model's order.
        note: What padding changes; empty when nothing.
    """

    buckets: LengthBuckets
    inputs: Mapping[str, int]
    outputs: tuple[tuple[int, ...], ...]
    note: str = ""

    def of(self, tensors: Tensors) -> int:
        """The length of a checked request.

        Raises:
            BadRequest: Its inputs are not of one length.
        """
        length: int = tensors[self.buckets.mask].shape[self.inputs[self.buckets.mask]]
        for name, axis in self.inputs.items():
            if tensors[name].shape[axis] != length:
                raise BadRequest(
                    f"input {name!r} has {tensors[name].shape[axis]} along axis {axis}, and {self.buckets.mask!r} "
                    f"{length}",
                    where=name,
                )
        return length

    def group_of(self, tensors: Tensors) -> Hashable:
        """What requests must have in common to share a batch: a bucket, and all sizes but the length.

        A row of which everything is masked is padded by nobody: what a model makes of it may depend on its length.

        Raises:
            BadRequest: Its inputs are not of one length.
        """
        length, mask = self.of(tensors), tensors[self.buckets.mask]
        place = bisect_left(self.buckets.sizes, length)
        if place == len(self.buckets.sizes) or not mask.any(axis=self.inputs[self.buckets.mask]).all():
            return group_of(tensors)
        sizes = {name: tensor.shape[1:] for name, tensor in tensors.items()}
        sizes |= {name: self._row_shape(tensors[name], axis, 0) for name, axis in self.inputs.items()}
        return self.buckets.sizes[place], tuple(sorted(sizes.items()))

    def largest_rows(self, tensors: Tensors) -> dict[str, tuple[int, ...]]:
        """The shapes of the longest row that may be in a batch with these, of each input with a length."""
        length = self.of(tensors)
        longest = next((size for size in self.buckets.sizes if size >= length), length)
        return {name: self._row_shape(tensors[name], axis, longest) for name, axis in self.inputs.items()}

    def views(self, buffers: Mapping[str, Array], length: int) -> dict[str, Array]:
        """The memory of a batch's inputs, as rows of this length, which lie one behind another."""
        views = dict(buffers)
        for name, axis in self.inputs.items():
            shape = (len(buffers[name]), *self._row_shape(buffers[name], axis, length))
            views[name] = buffers[name].reshape(-1)[: prod(shape)].reshape(shape)
        return views

    def pad(self, requests: Sequence[Tensors], name: str, rows: Array) -> None:
        """Write an input that has a length, request behind request, to `rows`, and zeros where they are longer."""
        axis = self.inputs[name]
        start = 0
        for request in requests:
            tensor = request[name]
            stop, length = start + len(tensor), tensor.shape[axis]
            own = rows[start:stop].swapaxes(1, axis)
            own[:, :length] = tensor.swapaxes(1, axis)
            own[:, length:] = "" if tensor.dtype.kind == "O" else 0
            start = stop

    def stretch(self, row: Tensors, length: int) -> dict[str, Array]:
        """`row`, repeated or cut to a length, with nothing masked."""
        made = dict(row)
        for name, axis in self.inputs.items():
            tensor = np.take(row[name], np.arange(length) % row[name].shape[axis], axis)
            made[name] = np.ones_like(tensor) if name == self.buckets.mask else tensor
        return made

    def cut(self, outputs: Sequence[Array], length: int) -> list[Array]:
        """What of the outputs belongs to a request of this length; copied where it is not all."""
        results = []
        for output, axes in zip(outputs, self.outputs, strict=True):
            own = [slice(None)] * output.ndim
            for axis in axes:
                own[axis] = slice(length)
            results.append(np.ascontiguousarray(output[tuple(own)]) if axes else output)
        return results

    def _row_shape(self, tensor: Array, axis: int, length: int) -> tuple[int, ...]:
        shape = list(tensor.shape)
        shape[axis] = length
        return tuple(shape[1:])
