"""From a file to warm engines: load, measure, choose the largest batch, warm up, run an example. Blocks for seconds.

    load_engine() ─> Engine ─ lengths ─ curve ─> max_batch_size ─ warm-up ─> RowRunner ─ one row ─> Prepared
                 └─> further instances ───────────────────────── warm-up ─> RowRunner ───────────────┘

The instances are made one after the other. Source: sessions that are created from several threads at once have crashed
(onnxruntime issue 26610).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from redserve.engine.arena import ArenaWatch
from redserve.engine.base import Engine
from redserve.engine.bfloat16 import is_float
from redserve.engine.buckets import sizes_up_to, takes_buckets
from redserve.engine.curve import (
    MAX_MEASURED_ROWS,
    CurvePoint,
    choose_max_batch_size,
    measure_curve,
    run_sizes,
    sizes_to_warm,
    usual_run_s,
    warm_up,
)
from redserve.engine.length_cost import PaddingCost, measure_padding
from redserve.engine.length_probe import judge_lengths
from redserve.engine.lengths import Lengths
from redserve.engine.row_runner import RowRunner
from redserve.engine.samples import find_sampler
from redserve.engine.tensors import Array, Tensors, check_tensors
from redserve.errors import BadRequest, ModelError, ModelLoadError
from redserve.models.options import ModelOptions

Outputs = list[Array]


@dataclass(frozen=True)
class Prepared:
    """Engines that may be given requests.

    Attributes:
        engines: The instances, loaded and warm.
        runners: Run batches on them, each one at a time.
        max_batch_size: Rows run together, at most.
        sizes: The only batch sizes that run, if they are few; batches are padded to them.
        curve: Measured seconds per batch size.
        example: One row and the model's answer to it; `None` where no made-up row runs.
        shares_cores: Whether the event loop has only the cores that its runs take.
        is_short: Whether its runs may be made on the event loop, see `ModelOptions.inline_below_s`.
        lengths: Which rows of different lengths share a batch; `None`: none do.
        padding: What that costs, by bucket.
    """

    engines: tuple[Engine, ...]
    runners: tuple[RowRunner, ...]
    max_batch_size: int
    sizes: tuple[int, ...]
    curve: tuple[CurvePoint, ...]
    example: tuple[Tensors, Outputs] | None
    is_short: bool
    shares_cores: bool
    lengths: Lengths | None = None
    padding: tuple[PaddingCost, ...] = ()


def prepare(
    load_engine: Callable[[], Engine], options: ModelOptions | None = None, *, example: Tensors | None = None
) -> Prepared:
    """Load the engines and warm them up; blocks.

    Args:
        load_engine: Makes an engine; called once for each instance.
        options: How the model is served.
        example: One row to try it with; without it the sample of the options, or else one is made up.

    Raises:
        ModelLoadError: It cannot be loaded, or not be run as asked.
        ModelError: It fails where it has to run.
    """
    options = options or ModelOptions()
    engine = load_engine()
    _check_labels(engine, options)
    sample = example
    if options.sample is not None:
        sample = _sample_of(engine, options.sample)
    max_batch_size = _possible_batch_size(engine, options.max_batch_size)
    lengths, row = None, None
    if options.lengths is not None:
        lengths, row = judge_lengths(engine, options.lengths, row=sample)
    is_padded = takes_buckets(engine, options.batch_buckets)
    asked = options.batch_buckets if isinstance(options.batch_buckets, tuple) else ()
    max_rows = max_batch_size or max(asked, default=min(MAX_MEASURED_ROWS, options.policy.max_queue_rows))
    curve = tuple(measure_curve(engine, max_rows=max_rows, sizes=sizes_up_to(max_rows, asked) if is_padded else ()))
    if max_batch_size is None:
        max_batch_size = choose_max_batch_size(curve, short_s=options.inline_below_s or 0.0)
    sizes = sizes_up_to(max_batch_size, asked) if is_padded else ()
    engines = [engine]
    slots = int(getattr(engine, "slots", 1)) if options.slots is None else options.slots
    padding = _warm_up(engine, max_batch_size, sizes, slots, sample, lengths, row)
    for _ in range(1, options.instances):
        engines.append(load_engine())
        _warm_up(engines[-1], max_batch_size, sizes, slots, sample, lengths, row)
    runners = tuple(
        RowRunner(each, max_batch_size, sizes=sizes, lengths=lengths) for _ in range(slots) for each in engines
    )
    answered = _run_example(engine, runners[0], sample)
    is_short = len(runners) == 1 and _is_short(engine, max_batch_size, options)
    shares_cores = len(runners) == 1 and getattr(engine, "shares_cores", False)
    return Prepared(
        tuple(engines), runners, max_batch_size, sizes, curve, answered, is_short, shares_cores, lengths, padding
    )


def try_out(load_engine: Callable[[], Engine], options: ModelOptions) -> None:
    """Load one engine, hold the options against it, and free it; blocks.

    Raises:
        ModelLoadError: It cannot be loaded, or not be run as asked.
    """
    engine = load_engine()
    try:
        _check_labels(engine, options)
        sample = None if options.sample is None else _sample_of(engine, options.sample)
        _possible_batch_size(engine, options.max_batch_size)
        takes_buckets(engine, options.batch_buckets)
        if options.lengths is not None:
            judge_lengths(engine, options.lengths, row=sample)
    finally:
        engine.close()


def _is_short(engine: Engine, max_batch_size: int, options: ModelOptions) -> bool:
    limit_s = options.inline_below_s
    if limit_s is None or not getattr(engine, "can_run_inline", False):
        return False
    return usual_run_s(engine, max_batch_size) < limit_s


def _possible_batch_size(engine: Engine, wanted: int | None) -> int | None:
    mode, rows = engine.batchability.mode, engine.batchability.rows
    if mode == "dynamic":
        return wanted
    fixed = rows if mode == "fixed" and rows is not None else 1
    if wanted is not None and wanted > fixed:
        raise ModelLoadError(
            f"max_batch_size {wanted} cannot be kept: the model runs {fixed} rows at a time "
            f"({engine.batchability.reason})"
        )
    return wanted or fixed


def _check_labels(engine: Engine, options: ModelOptions) -> None:
    known = [spec.name for spec in engine.outputs]
    for name in options.labels:
        if name not in known:
            raise ModelLoadError(f"labels: the model has no output {name!r}; it has {', '.join(known)}")


def _sample_of(engine: Engine, values: Mapping[str, object]) -> Tensors:
    try:
        sample = {
            spec.name: np.ascontiguousarray(np.asarray(values[spec.name], spec.dtype))
            for spec in engine.inputs
            if spec.name in values
        }
        rows = check_tensors(engine.inputs, sample, row_wise=engine.batchability.is_row_wise, finite=False)
        if unknown := values.keys() - sample.keys():
            raise BadRequest(f"there is no input {', '.join(sorted(unknown))}")
        if rows != 1 and engine.batchability.is_row_wise:
            raise BadRequest(f"one row is wanted, not {rows}")
    except (ValueError, TypeError, BadRequest) as error:
        raise ModelLoadError(f"sample: {error}") from error
    return sample


def _warm_up(
    engine: Engine,
    max_batch_size: int,
    sizes: Sequence[int],
    slots: int,
    sample: Tensors | None,
    lengths: Lengths | None,
    row: Tensors | None,
) -> tuple[PaddingCost, ...]:
    """Every batch size, and of each bucket of lengths the largest; tells what padding costs."""
    arena: ArenaWatch | None = getattr(engine, "arena", None)
    if arena is not None:
        arena.begin_warm_up()
    if not warm_up(engine, max_batch_size, sizes, at_once=slots) and sample is not None:
        _warm_up_with(engine, sizes_to_warm(engine, max_batch_size, sizes), slots, sample)
    padding = () if lengths is None or row is None else tuple(measure_padding(engine, lengths, max_batch_size, row=row))
    if arena is not None:
        arena.end_warm_up()
    return padding


def _warm_up_with(engine: Engine, sizes: Sequence[int], slots: int, sample: Tensors) -> None:
    """On copies of the sample, where no made-up input runs."""

    def repeat(rows: int) -> Tensors:
        return {name: np.repeat(tensor, rows, axis=0) if rows > 1 else tensor for name, tensor in sample.items()}

    run_sizes(engine, sizes if engine.batchability.is_row_wise else (1,), repeat, at_once=slots)


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
            name: np.trunc(100 * tensor) / 100 if is_float(tensor.dtype) else tensor for name, tensor in drawn.items()
        }
    (outputs,) = runner([row])
    return None if isinstance(outputs, Exception) else (row, outputs)
