"""What a batch costs, measured: the curve, the batch size it speaks for, and the warm-up before the first request.

measure_curve ─ rows and seconds, powers of two ─> choose_max_batch_size ─> warm_up
"""

import logging
import math
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from redserve.engine.base import Engine
from redserve.engine.onnx_options import usable_cpus
from redserve.engine.samples import Sampler, find_sampler
from redserve.engine.tensors import Tensors
from redserve.errors import ModelError

logger = logging.getLogger("redserve.engine")

CpuClocks = tuple[Callable[[], float], Callable[[], float]]

MAX_MEASURED_ROWS = 128
"""Where the search for the best batch size ends: on two cores a perceptron of 256-3x2048-10 has 12 % more rows/s at 128
rows than at 64, and 128 connections that wait for each answer get 1.1 times as many."""

_MIN_RUNS, _MAX_RUNS, _ENOUGH_S = 5, 200, 0.005
_CPU_CLOCKS: CpuClocks = (time.thread_time, time.process_time)
_PASSES = 2  # what else the machine does for a moment only adds time, and seldom to both
_CLOSE_TO_BEST = 0.95
_UNMEASURED_ROWS = 8
_MANY_ROWS = 64


@dataclass(frozen=True)
class CurvePoint:
    """A batch of `rows` takes `seconds`: the median of the runs of a pass, in the quicker of two.

    Where the engine computes in the thread that calls it, the least of all runs, by what they took of the processor.
    """

    rows: int
    seconds: float

    @property
    def rows_per_s(self) -> float:
        """Throughput of back-to-back runs."""
        return self.rows / self.seconds


def measure_curve(
    engine: Engine,
    *,
    max_rows: int = MAX_MEASURED_ROWS,
    sizes: Sequence[int] = (),
    budget_s: float = 2.0,
    clock: Callable[[], float] = time.perf_counter,
    cpu_clocks: CpuClocks = _CPU_CLOCKS,
) -> list[CurvePoint]:
    """Time the engine at 1, 2, 4, ... rows, twice; where the model allows one size only, at that one.

    Args:
        engine: What is timed, on made-up inputs.
        max_rows: Where it ends.
        sizes: The only ones that will run, if they are few: timed in place of powers of two.
        budget_s: No further size is begun after this long.
        clock: Seconds.
        cpu_clocks: Seconds that the thread, and the process, have computed.

    Returns:
        The points by rows; a pass ends when two sizes in a row brought no more rows/s, the budget was used up or a size
        failed. None where no made-up input runs.
    """
    sampler = _sampler_of(engine)
    if sampler is None:
        return []
    batchability = engine.batchability
    if batchability.mode != "dynamic":
        sizes = (batchability.rows or 1,)
    deadline_s = clock() + budget_s
    sizes = sizes or [2**power for power in range(max_rows.bit_length())]
    least: Callable[[list[float]], float] = min if _computes_in_caller(engine) else statistics.median
    points: dict[int, CurvePoint] = {}
    for _ in range(_PASSES):
        best, fruitless = 0.0, 0
        for place, rows in enumerate(sizes):
            if points and (fruitless == 2 or clock() >= deadline_s):
                break
            try:
                times_s = _times_s(engine, sampler.draw(rows), clock, deadline_s, cpu_clocks)
            except ModelError as error:
                logger.warning("batch size failed in measurement", extra={"rows": rows, "error": str(error)})
                sizes = sizes[:place]
                break
            seconds = max(least(times_s), 1e-9)
            if rows not in points or seconds < points[rows].seconds:
                points[rows] = CurvePoint(rows, seconds)
            rows_per_s = points[rows].rows_per_s
            fruitless = 0 if rows_per_s > best else fruitless + 1
            best = max(best, rows_per_s)
    return [points[rows] for rows in sorted(points)]


def choose_max_batch_size(curve: Sequence[CurvePoint], *, short_s: float = 0.0) -> int:
    """The smallest measured batch whose rows/s is within 5 % of the best; 8 where nothing was measured.

    Args:
        curve: Measured.
        short_s: Batches that take less may run on the event loop, so half of that batch is taken where it is short, the
            whole is not, and half has 64 rows or more: those are more a second than the loop brings.
    """
    if not curve:
        return _UNMEASURED_ROWS
    best = max(point.rows_per_s for point in curve)
    chosen = min((point for point in curve if point.rows_per_s >= _CLOSE_TO_BEST * best), key=lambda point: point.rows)
    halves = [point for point in curve if point.rows == chosen.rows // 2 and point.rows >= _MANY_ROWS]
    if halves and halves[0].seconds < short_s <= chosen.seconds:
        return halves[0].rows
    return chosen.rows


def sizes_to_warm(engine: Engine, max_batch_size: int, sizes: Sequence[int] = ()) -> Sequence[int]:
    """Every batch size that will run, the largest first, so that memory is claimed in one piece."""
    if engine.batchability.mode != "dynamic":
        return (engine.batchability.rows or 1,)
    return sizes[::-1] if sizes else range(max_batch_size, 0, -1)


def warm_up(engine: Engine, max_batch_size: int, sizes: Sequence[int] = (), *, at_once: int = 1) -> int:
    """Run every batch size that will run once.

    Args:
        engine: What is to be warm.
        max_batch_size: Up to which any size may run.
        sizes: The only ones that will, if they are few.
        at_once: Threads that do the same beside each other, so that each has all it needs on the device.

    Returns:
        How many sizes that were; 0 where no made-up input runs.

    Raises:
        ModelError: A size failed.
    """
    sampler = _sampler_of(engine)
    if sampler is None:
        return 0
    warmed = sizes_to_warm(engine, max_batch_size, sizes)
    run_sizes(engine, warmed, sampler.draw, at_once=at_once)
    return len(warmed)


def run_sizes(engine: Engine, sizes: Sequence[int], draw: Callable[[int], Tensors], *, at_once: int) -> None:
    """Run a batch of each size, one after the other, in each of so many threads.

    Raises:
        ModelError: One failed.
    """
    ready = threading.Barrier(at_once)

    def run_all(_: int) -> None:
        ready.wait()
        for rows in sizes:
            engine.run(draw(rows))

    if at_once == 1:
        run_all(0)
        return
    with ThreadPoolExecutor(at_once, thread_name_prefix="redserve-warm-up") as pool:
        list(pool.map(run_all, range(at_once)))


def usual_run_s(
    engine: Engine,
    rows: int,
    *,
    budget_s: float = 0.05,
    clock: Callable[[], float] = time.perf_counter,
    cpu_clocks: CpuClocks = _CPU_CLOCKS,
) -> float:
    """What a run of `rows` takes, the median; `inf` where no made-up input runs.

    Of at least 5 runs, at most 200, until the budget is used up. A rare run says more about what the machine or the
    interpreter does beside it: while a server answers 90,000 requests/s, one run of 13 us in twenty takes 0.2 to 5 ms.

    Raises:
        ModelError: It failed.
    """
    sampler = _sampler_of(engine)
    if sampler is None:
        return math.inf
    times_s = _times_s(engine, sampler.draw(rows), clock, clock() + budget_s, cpu_clocks, enough_s=budget_s)
    return statistics.median(times_s)


def _sampler_of(engine: Engine) -> Sampler | None:
    try:
        return find_sampler(engine.run, engine.inputs, rows=engine.batchability.rows or 1)
    except ModelError as error:
        logger.warning("no made-up input runs, so the model stays cold", extra={"error": str(error)})
        return None


def _times_s(
    engine: Engine,
    tensors: Tensors,
    clock: Callable[[], float],
    deadline_s: float,
    cpu_clocks: CpuClocks,
    *,
    enough_s: float = _ENOUGH_S,
) -> list[float]:
    """What each of several runs took; where the engine computes in the thread that calls it, of the processor.

    Busy processes would make a run of 64 rows, longer than a turn of the scheduler, seem five times as long, and one of
    8 rows as long as it is. There it takes what this thread has computed, and no less than each of those that help it:
    one of them may have done the work of this one.
    """
    helpers = _helpers(engine) if _computes_in_caller(engine) else 0
    thread_clock, process_clock = cpu_clocks
    engine.run(tensors)  # the first run of a shape also allocates
    times_s: list[float] = []
    while True:
        if _computes_in_caller(engine):
            process_s, thread_s = process_clock(), thread_clock()
            engine.run(tensors)
            thread_s, process_s = thread_clock() - thread_s, process_clock() - process_s
            times_s.append(max(thread_s, (process_s - thread_s) / helpers) if helpers else thread_s)
        else:
            start_s = clock()
            engine.run(tensors)
            times_s.append(clock() - start_s)
        enough = len(times_s) >= _MIN_RUNS and sum(times_s) >= enough_s
        if enough or len(times_s) == _MAX_RUNS or clock() >= deadline_s:
            return times_s


def _helpers(engine: Engine) -> int:
    """Threads that compute beside the one that calls, each on a core of its own."""
    return max(min(int(getattr(engine, "intra_op_threads", 1) or 1), usable_cpus()) - 1, 0)


def _computes_in_caller(engine: Engine) -> bool:
    return getattr(engine, "computes_in_caller", False)
