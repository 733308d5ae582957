"""May rows of different lengths share a batch? By what the model declares, then by trying it.

    the mask's open axis ─> axes of the inputs ─ probe: a short row alone, and padded beside a long one ─> Lengths
                                                     └─ another answer ─> refused

Refused rather than served in groups of equal length: whoever names buckets counts on them.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from redserve.engine.base import Engine
from redserve.engine.bfloat16 import is_float
from redserve.engine.lengths import LengthBuckets, Lengths
from redserve.engine.samples import find_sampler
from redserve.engine.tensors import Array, Tensors, TensorSpec
from redserve.errors import ModelError, ModelLoadError

_TOLERANCE = {2: 2e-2, 4: 1e-3, 8: 1e-3}
"""What rounding may do between two lengths, by bytes per float, of an output's largest number; 1e-6 seen in float32."""


def judge_lengths(engine: Engine, buckets: LengthBuckets, *, row: Tensors | None = None) -> tuple[Lengths, Tensors]:
    """Find out where the model has its length, and that padding changes no answer; blocks.

    Args:
        engine: Whose model it is.
        buckets: What is asked for.
        row: One row that is known to run; without it, one is made up.

    Returns:
        That, and the row that it was tried with.

    Raises:
        ModelLoadError: Rows of different lengths cannot share a batch.
    """
    batchability = engine.batchability
    if batchability.mode == "whole" or batchability.rows == 1:
        raise _refused(f"its rows share no batch: {batchability.reason}")
    axes = _length_axes(engine.inputs, buckets.mask)
    if row is None:
        row = _made_up_row(engine)
    try:
        return _probe(engine, buckets, axes, row), row
    except ModelError as error:
        raise _refused(f"a row that is padded, or one of those lengths, does not run: {error}") from error


def _length_axes(inputs: Sequence[TensorSpec], mask: str) -> dict[str, int]:
    """The axis of each input that has the length: named as the mask's is, or the only one without a name."""
    spec = next((each for each in inputs if each.name == mask), None)
    if spec is None:
        names = ", ".join(each.name for each in inputs)
        raise _refused(f"the model has no input {mask!r} that could say what is padding; it has {names}")
    if not (spec.dtype.kind in "iub" or is_float(spec.dtype)):
        raise _refused(f"input {spec} is no mask of numbers")
    open_axes = _open_axes(spec)
    if len(open_axes) != 1:
        raise _refused(
            f"input {spec} has {len(open_axes) or 'no'} open sizes behind its rows, and one is to be the length"
        )
    symbol = spec.shape[open_axes[0]]
    axes = {mask: open_axes[0]}
    for each in inputs:
        of_length = [axis for axis in _open_axes(each) if each.shape[axis] == symbol]
        if each is not spec and len(of_length) > 1:
            raise _refused(f"input {each} has {len(of_length)} sizes that could be the length")
        if of_length:
            axes[each.name] = of_length[0]
    if len(axes) == 1:
        raise _refused(f"no input but the mask has an open size {symbol or ''}".rstrip())
    return axes


def _open_axes(spec: TensorSpec) -> list[int]:
    return [axis for axis, size in enumerate(spec.shape) if axis and not isinstance(size, int)]


def _made_up_row(engine: Engine) -> Tensors:
    rows = engine.batchability.rows or 1
    try:
        drawn = find_sampler(engine.run, engine.inputs, rows=rows).draw(rows)
    except ModelError as error:
        raise _refused(f"it cannot be tried, a sample is needed: no made-up row runs ({error})") from error
    return {name: tensor[:1] for name, tensor in drawn.items()}


def _probe(engine: Engine, buckets: LengthBuckets, axes: Mapping[str, int], row: Tensors) -> Lengths:
    lengths = Lengths(buckets=buckets, inputs=axes, outputs=())
    rows_per_run = engine.batchability.rows or 2
    worst, found = 0.0, None
    for shortest, longest in buckets.ends():
        short, long = (lengths.stretch(row, length) for length in (shortest, longest))
        alone, other = (_run(engine, request, engine.batchability.rows or 1) for request in (short, long))
        outputs = _output_axes(engine.outputs, alone, other, shortest, longest)
        if found not in (None, outputs):
            raise _refused("its outputs have their length in other places for other lengths")
        found = outputs
        lengths = Lengths(buckets=buckets, inputs=axes, outputs=outputs)
        together = _run(engine, _padded(lengths, short, long), rows_per_run)
        for spec, one, two in zip(engine.outputs, alone, lengths.cut(together, shortest), strict=True):
            gap = _gap(one[0], two[0])
            if gap > _TOLERANCE.get(spec.dtype.itemsize, 0.0) and not buckets.must:
                raise _refused(
                    f"a row of {shortest} that is padded to {longest} is answered otherwise than alone: output "
                    f"{spec.name!r} by {gap:.2g} of its largest value; batching=on lets it"
                )
            worst = max(worst, gap)
    note = f"padding changes a row's answer by up to {worst:.2g} of its largest value" if worst > 1e-3 else ""
    return Lengths(buckets=buckets, inputs=axes, outputs=found or (), note=note)


def _padded(lengths: Lengths, short: Tensors, long: Tensors) -> dict[str, Array]:
    batch = {name: np.concatenate([long[name], long[name]]) for name in long}
    for name, tensor in short.items():
        if name in lengths.inputs:
            lengths.pad([short, long], name, batch[name])
        else:
            batch[name][:1] = tensor
    return batch


def _run(engine: Engine, batch: Tensors, rows: int) -> list[Array]:
    """Filled up to the rows that a run has to have."""
    missing = rows - len(next(iter(batch.values())))
    return engine.run({name: np.concatenate([tensor, *[tensor[-1:]] * missing]) for name, tensor in batch.items()})


def _output_axes(
    specs: Sequence[TensorSpec], short: Sequence[Array], long: Sequence[Array], shortest: int, longest: int
) -> tuple[tuple[int, ...], ...]:
    """Where the sizes of the outputs follow the length."""
    found = []
    for spec, one, two in zip(specs, short, long, strict=True):
        differing = [axis for axis in range(1, one.ndim) if one.ndim != two.ndim or one.shape[axis] != two.shape[axis]]
        if any(one.ndim != two.ndim or (one.shape[axis], two.shape[axis]) != (shortest, longest) for axis in differing):
            raise _refused(
                f"output {spec.name!r} cannot be cut back: it has shape {list(one.shape)} for a row of {shortest}, and "
                f"{list(two.shape)} for one of {longest}"
            )
        found.append(tuple(differing))
    return tuple(found)


def _gap(one: Array, two: Array) -> float:
    """How far apart two answers are, of the largest number in them; 1 where they are no numbers and not equal."""
    if one.shape != two.shape:
        return 1.0
    if not is_float(one.dtype):
        return 0.0 if np.array_equal(one, two) else 1.0
    first, second = (np.nan_to_num(each.astype(np.float64), posinf=0.0, neginf=0.0) for each in (one, two))
    largest = float(np.max(np.abs(first), initial=1e-6))
    return float(np.max(np.abs(first - second), initial=0.0)) / largest


def _refused(why: str) -> ModelLoadError:
    return ModelLoadError(f"length_buckets: {why}")
