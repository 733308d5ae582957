"""Rows on their way: a block of consecutive ones, sorted into batches that may run, and what they came to.

rows ─ sort_rows ─> groups of one shape, and failures ─ run_block ─> outputs by place, and failures
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TypeVar

import numpy as np

from redserve.batching.isolate import parts_to_run
from redserve.engine.tensors import Array, Tensors, group_of
from redserve.errors import BadRequest, ModelError, RedserveError, WrongResultCount

Failures = dict[int, RedserveError]
"""Why rows have no answer, by their place in the block."""
Runner = Callable[[Sequence[Tensors]], Sequence[list[Array] | Exception]]

LEAST_ROWS = 256
LEAST_BYTES = 4 * 2**20

R = TypeVar("R", list[bytes], Array)


@dataclass(frozen=True, slots=True)
class InputMark:
    """How far an input was read.

    Attributes:
        rows: Before here.
        size_bytes: Of them.
        sha256: Of those bytes.
    """

    rows: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that may share a batch.

    Attributes:
        places: Where they stand in their block.
        tensors: They, in this order.
    """

    places: Sequence[int]
    tensors: Tensors


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows of an input.

    Attributes:
        rows: How many.
        groups: Those that can be run.
        failures: Those that cannot be read.
        end: How far the input was read for it.
    """

    rows: int
    groups: Sequence[Group]
    failures: Failures
    end: InputMark


@dataclass(slots=True)
class Answers:
    """What a block came to.

    Attributes:
        parts: Places and their outputs, one array an output of the model.
        failures: The other rows.
        engine_s: Seconds in the engine.
    """

    parts: list[tuple[Sequence[int], list[Array]]] = field(default_factory=list)
    failures: Failures = field(default_factory=dict)
    engine_s: float = 0.0


def is_full(rows: int, size_bytes: int, *, max_batch_size: int) -> bool:
    """Whether a block ends here: after full batches, enough of them to be worth the way."""
    return rows % max_batch_size == 0 and (rows >= LEAST_ROWS or size_bytes >= LEAST_BYTES)


def rows_of_full_block(row_bytes: int, *, max_batch_size: int) -> int:
    """Where a block of rows of this size is full."""
    enough = min(LEAST_ROWS, -(-LEAST_BYTES // max(row_bytes, 1)))
    return -(-enough // max_batch_size) * max_batch_size


def sort_rows(pieces: Iterable[R], read: Callable[[R], Tensors]) -> tuple[list[Group], Failures]:
    """Read rows: all of a piece in one go, or where that fails each by itself.

    Args:
        pieces: Rows, in order.
        read: Makes checked tensors of some of them, or raises `BadRequest`.
    """
    failures: Failures = {}
    by_shape: dict[object, tuple[list[int], list[Tensors]]] = {}
    start = 0
    for piece in pieces:
        try:
            readings: list[tuple[range, Tensors]] = [(range(start, start + len(piece)), read(piece))]
        except BadRequest:
            readings = []
            for index in range(len(piece)):
                try:
                    readings.append((range(start + index, start + index + 1), read(piece[index : index + 1])))
                except BadRequest as error:
                    failures[start + index] = error
        for places, tensors in readings:
            known, parts = by_shape.setdefault(group_of(tensors), ([], []))
            known.extend(places)
            parts.append(tensors)
        start += len(piece)
    return [Group(places, _joined(parts)) for places, parts in by_shape.values()], failures


def run_block(run: Runner, block: Block, *, max_batch_size: int) -> Answers:
    """Run the groups in batches. A batch that fails is run again in parts, until only the rows at fault fail."""
    answers = Answers(failures=dict(block.failures))
    for group in block.groups:
        for start in range(0, len(group.places), max_batch_size):
            stop = start + max_batch_size
            batch = {name: tensor[start:stop] for name, tensor in group.tensors.items()}
            _run_batch(run, batch, group.places[start:stop], answers)
    return answers


def _run_batch(run: Runner, batch: Tensors, places: Sequence[int], answers: Answers) -> None:
    failed: Failures = {}
    parts = parts_to_run(len(places), max_reruns=2 * len(places))
    part = next(parts)
    while True:
        begun_s = perf_counter()
        try:
            (outputs,) = run([{name: tensor[part.start : part.stop] for name, tensor in batch.items()}])
            if isinstance(outputs, Exception):
                raise outputs
        except Exception as error:
            reason = error if isinstance(error, RedserveError) else ModelError(f"{type(error).__name__}: {error}")
            failed.update((places[index], reason) for index in part)
            has_run = False
            if isinstance(error, WrongResultCount):  # the fault of no row, and none can be trusted
                break
        else:
            answers.parts.append((places[part.start : part.stop], outputs))
            for index in part:
                failed.pop(places[index], None)
            has_run = True
        finally:
            answers.engine_s += perf_counter() - begun_s
        try:
            part = parts.send(has_run)
        except StopIteration:
            break
    answers.failures.update(failed)


def _joined(parts: Sequence[Tensors]) -> Tensors:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
