"""May requests share a run? By what the model declares, then by trying it.

    declared inputs ─ rule ─> dynamic | fixed ─ probe: run 1 and 3 rows ─> dynamic | fixed (1: row by row)
                       └────> whole                                └─────> whole, with the reason

A declaration is not enough: outputs' sizes carry other names or none, and exporters leave a batch of 1 in a Reshape.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from redserve.engine.base import Batchability
from redserve.engine.bfloat16 import is_float
from redserve.engine.samples import Sampler, find_sampler
from redserve.engine.tensors import Array, Tensors, TensorSpec
from redserve.errors import ModelError, ModelLoadError

Run = Callable[[Tensors], list[Array]]
Interrupt = Callable[[int], None]

_PROBED_ROWS = 3
_EXTREMES = (100.0, -100.0)
_EXTREME_S, _TIMES_USUAL = 1.0, 10.0
"""What a run of extreme rows may take, and times what one of usual rows takes: a loop may count by a value."""
_AMONG_OTHERS = {2: 1e-2, 4: 1e-4, 8: 1e-4}
"""What rounding may do in a batch of one size, by bytes per float, of an output's largest number; mostly nothing."""
_ALONE = {2: 2e-2, 4: 1e-2, 8: 1e-2}
"""The same between batch sizes, which run other kernels: 3e-3 seen on CPU where made-up input is far from real."""


def judge_batchability(
    run: Run,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    interrupt: Interrupt,
    batching: Literal["auto", "on", "off"] = "auto",
) -> Batchability:
    """Decide how a model may be batched.

    Args:
        run: Runs the model, raising `ModelError`.
        inputs: What it declares to take.
        outputs: What it declares to answer.
        interrupt: Ends the run in progress in a thread, by its number.
        batching: `on` overrules the doubts (names that say otherwise, a probe that could not be made, rows that
            change each other); `off` runs each request as it came.

    Raises:
        ModelLoadError: `batching="on"` for a model that cannot be.
    """
    if batching == "off":
        return Batchability(mode="whole", reason="batching is turned off: each request runs as it came")
    obstacle = _obstacle(inputs)
    doubt = "" if batching == "on" or obstacle else _doubt(inputs)
    if not obstacle and not doubt:
        rows = inputs[0].shape[0]
        probe = _probe_fixed if isinstance(rows, int) else _probe_dynamic
        try:
            judged = probe(run, interrupt, inputs, outputs, must=batching == "on")
        except ModelError as error:
            judged = f"a batch fails where another runs ({error})"
        if isinstance(judged, Batchability):
            return judged
        obstacle = judged
    if batching == "on":
        raise ModelLoadError(f"batching is on, but {obstacle}")
    return Batchability(mode="whole", reason=f"each request runs as it came: {obstacle or doubt}")


def _obstacle(inputs: Sequence[TensorSpec]) -> str:
    """What in the declared inputs rules batching out; empty if nothing does."""
    if not inputs:
        return "the model has no inputs"
    for spec in inputs:
        if not spec.shape:
            return f"input {spec.name!r} is a scalar, or declares no shape, so it has no rows"
        if spec.shape[0] == 0:
            return f"input {spec.name!r} is declared to be empty"
    first = inputs[0]
    for spec in inputs[1:]:
        sizes = [size if isinstance(size, int) else None for size in (first.shape[0], spec.shape[0])]
        if sizes[0] != sizes[1]:
            return f"inputs {first} and {spec} do not have the same rows"
    return ""


def _doubt(inputs: Sequence[TensorSpec]) -> str:
    """What in the declared names speaks against axis 0 being the batch; empty if nothing does."""
    row_symbols = {spec.shape[0] for spec in inputs}
    for spec in inputs:
        for axis, size in enumerate(spec.shape[1:], start=1):
            if isinstance(size, str) and size in row_symbols:
                return f"input {spec} has {size!r} on axis {axis}, which counts rows elsewhere"
            if _means_batch(size) and not any(map(_means_batch, row_symbols)):
                return f"input {spec} has its batch on axis {axis}, not on axis 0"
    return ""


def _means_batch(size: int | str | None) -> bool:
    return isinstance(size, str) and (size.lower().startswith("batch") or size in ("N", "bs"))


def _probe_dynamic(
    run: Run, interrupt: Interrupt, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], *, must: bool
) -> Batchability | str:
    try:
        sampler = find_sampler(run, inputs)
    except ModelError as error:
        return _unproven(f"it runs on no made-up input ({error})", mode="dynamic", rows=None, must=must)
    batch = sampler.draw(_PROBED_ROWS)
    alone = {name: tensor[:1] for name, tensor in batch.items()}
    answer_alone = run(alone)
    answer = run(batch)
    problem = _unfaithful(outputs, answer_alone, rows=1) or _unfaithful(outputs, answer, rows=_PROBED_ROWS)
    if problem:
        return problem
    difference = _neighbours_matter(run, interrupt, sampler, batch, answer)
    difference = difference or _difference(answer_alone, 0, answer, 0, _ALONE)
    if difference and not must:
        return Batchability(
            mode="fixed",
            rows=1,
            reason=f"runs row by row, since rows in one run change each other's answers ({difference}); "
            "batching=on lets them, batching=off runs each request as it came",
        )
    return Batchability(
        mode="dynamic",
        reason=f"axis 0 of every input and output counts rows, as runs of 1 and {_PROBED_ROWS} show",
        note=_note(difference),
    )


def _probe_fixed(
    run: Run, interrupt: Interrupt, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], *, must: bool
) -> Batchability | str:
    rows = int(inputs[0].shape[0] or 1)
    try:
        sampler = find_sampler(run, inputs, rows=rows)
    except ModelError as error:
        return _unproven(f"it runs on no made-up input ({error})", mode="fixed", rows=rows, must=must)
    batch = sampler.draw(rows)
    answer = run(batch)
    problem = _unfaithful(outputs, answer, rows=rows)
    if problem:
        return problem
    difference = _neighbours_matter(run, interrupt, sampler, batch, answer) if rows > 1 else ""
    if difference and not must:
        return f"its {rows} rows are not independent ({difference}), so they are not {rows} requests"
    how = "row by row" if rows == 1 else f"padded to {rows} rows"
    return Batchability(
        mode="fixed", rows=rows, reason=f"the model fixes axis 0 to {rows}: runs {how}", note=_note(difference)
    )


def _unproven(problem: str, *, mode: Literal["dynamic", "fixed"], rows: int | None, must: bool) -> Batchability | str:
    if not must:
        return f"{problem}, so batching is unproven; turn it on if its rows are independent"
    return Batchability(mode=mode, rows=rows, reason="batching is turned on", note=f"unproven: {problem}")


def _unfaithful(outputs: Sequence[TensorSpec], answer: Sequence[Array], *, rows: int) -> str:
    for spec, output in zip(outputs, answer, strict=True):
        if output.ndim == 0 or output.shape[0] != rows:
            given = f"{rows} row{'s' if rows > 1 else ''}"
            return f"output {spec.name!r} has shape {list(output.shape)} for {given}, so its axis 0 is not the rows"
    return ""


def _neighbours_matter(
    run: Run, interrupt: Interrupt, sampler: Sampler, batch: Tensors, answer: Sequence[Array]
) -> str:
    """Put the batch's first row last, among other rows: what changes in its answer?

    Rows of the same kind do not tell of all models: a branch on a sum, or a scale that is the batch's largest value,
    changes only beside rows that are very different.
    """
    rows = next(iter(batch.values())).shape[0]

    def difference_beside(scale: float, run: Run) -> str:
        others = sampler.draw(rows, seed=1, scale=scale)
        for name, tensor in others.items():
            tensor[-1] = batch[name][0]
        return _difference(answer, 0, run(others), rows - 1, _AMONG_OTHERS)

    began_s = time.monotonic()
    difference = difference_beside(1.0, run)
    within = _within(_EXTREME_S + _TIMES_USUAL * (time.monotonic() - began_s), run, interrupt)
    for scale in _EXTREMES:
        try:
            difference = difference or difference_beside(scale, within)
        except ModelError:  # it takes no such rows, or takes too long for them
            continue
    return difference


def _within(limit_s: float, run: Run, interrupt: Interrupt) -> Run:
    """`run`, interrupted after that long."""

    def run_within(tensors: Tensors) -> list[Array]:
        timer = threading.Timer(limit_s, interrupt, (threading.get_ident(),))
        timer.start()
        try:
            return run(tensors)
        finally:
            timer.cancel()
            timer.join()  # so that it meets no later run

    return run_within


def _difference(
    answer: Sequence[Array], row: int, other: Sequence[Array], other_row: int, tolerance: Mapping[int, float]
) -> str:
    """How two answers to one row differ; empty where only by rounding."""
    worst, shown = 0.0, ""
    for one, two in zip(answer, other, strict=True):
        first, second = one[row : row + 1], two[other_row : other_row + 1]
        if first.shape != second.shape:
            return f"its shape is {list(first.shape[1:])} or {list(second.shape[1:])}"
        if not is_float(one.dtype):
            if not np.array_equal(first, second) and not shown:
                shown = "to another value"
            continue
        first, second = (np.nan_to_num(a.astype(np.float64), posinf=0.0, neginf=0.0) for a in (first, second))
        gap = float(np.max(np.abs(first - second), initial=0.0))
        scale = max(1.0, float(np.max(np.abs(first), initial=0.0)))
        if gap > tolerance[one.dtype.itemsize] * scale and gap > worst:
            worst, shown = gap, f"by up to {gap:.2g}"
    return shown


def _note(difference: str) -> str:
    return f"a row's answer changes with its batch mates: {difference}" if difference else ""
