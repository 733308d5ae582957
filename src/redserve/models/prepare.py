"""From a file to a warm engine: load, measure, choose the largest batch, warm up, run an example. Blocks for seconds.

load_engine() ─> Engine ─ curve ─> max_batch_size ─ warm-up ─> RowRunner ─ one row ─> Prepared
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from redserve.engine.base import Engine
from redserve.engine.curve import CurvePoint, choose_max_batch_size, measure_curve, warm_up
from redserve.engine.row_runner import RowRunner
from redserve.engine.samples import find_sampler
from redserve.engine.tensors import Array, Tensors
from redserve.errors import ModelError, ModelLoadError

Outputs = list[Array]

MAX_MEASURED_ROWS = 64
"""Where the search for the best batch size ends."""


@dataclass(frozen=True)
class Prepared:
    """An engine that may be given requests.

    Attributes:
        engine: That is loaded and warm.
        runner: Runs batches on it.
        max_batch_size: Rows run together, at most.
        curve: Measured seconds per batch size.
        example: One row and the model's answer to it; `None` where no made-up row runs.
    """

    engine: Engine
    runner: RowRunner
    max_batch_size: int
    curve: tuple[CurvePoint, ...]
    example: tuple[Tensors, Outputs] | None


def prepare(
    load_engine: Callable[[], Engine], *, max_batch_size: int | None = None, example: Tensors | None = None
) -> Prepared:
    """Load an engine and warm it up; blocks.

    Args:
        load_engine: Makes the engine.
        max_batch_size: Rows run together, at most; `None` takes the measured best.
        example: One row to try it with; without it, one is made up.

    Raises:
        ModelLoadError: It cannot be loaded, or not be run as asked.
        ModelError: It fails where it has to run.
    """
    engine = load_engine()
    mode, rows = engine.batchability.mode, engine.batchability.rows
    if mode != "dynamic":
        fixed = rows if mode == "fixed" and rows is not None else 1
        if max_batch_size is not None and max_batch_size > fixed:
            raise ModelLoadError(
                f"max_batch_size {max_batch_size} cannot be kept: the model runs {fixed} rows at a time "
                f"({engine.batchability.reason})"
            )
        max_batch_size = max_batch_size or fixed
    curve = tuple(measure_curve(engine, max_rows=max_batch_size or MAX_MEASURED_ROWS))
    if max_batch_size is None:
        max_batch_size = choose_max_batch_size(curve)
    warm_up(engine, max_batch_size)
    runner = RowRunner(engine, max_batch_size)
    return Prepared(engine, runner, max_batch_size, curve, _run_example(engine, runner, example))


def _run_example(engine: Engine, runner: RowRunner, row: Tensors | None) -> tuple[Tensors, Outputs] | None:
    """One row, of two decimals so that it reads well, and what the model answers."""
    if row is None:
        try:
            drawn = find_sampler(engine.run, engine.inputs, rows=engine.batchability.rows or 1).draw(1)
        except ModelError:
            return None
        if engine.batchability.is_row_wise:
            drawn = {name: tensor[:1] for name, tensor in drawn.items()}
        row = {
            name: np.trunc(100 * tensor) / 100 if tensor.dtype.kind == "f" else tensor for name, tensor in drawn.items()
        }
    (outputs,) = runner([row])
    return None if isinstance(outputs, Exception) else (row, outputs)
