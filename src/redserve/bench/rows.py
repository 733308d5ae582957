"""The rows that are sent: made up, or from a file.

    rows.jsonl   a row a line: a value, a nested list, or an object of named inputs
    x.npy        an array whose axis 0 counts rows

A row is what `/predict` calls one; an object of arrays by input name where there are several inputs.
"""

from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import orjson

from redserve.bench.mistakes import BenchError
from redserve.engine.tensors import Array, Tensors, TensorSpec

Row: TypeAlias = Any
"""What stands for one row in JSON; numpy arrays among it."""

MOST_ROWS = 100_000
"""Of a file, so many are used."""


def read_rows(path: Path) -> list[Row]:
    """The first rows of a file.

    Raises:
        BenchError: It cannot be read, or there is none in it.
    """
    try:
        if path.suffix == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            rows: list[Row] = list(np.array(array[:MOST_ROWS])) if array.ndim else []
        else:
            with path.open("rb") as lines:
                rows = [_parse(path, number, line) for number, line in enumerate(islice(lines, MOST_ROWS), 1)]
    except (OSError, ValueError) as error:
        raise BenchError(f"{path}: {error}") from error
    if not rows:
        raise BenchError(f"there is no row in {path}")
    return rows


def in_groups(rows: Sequence[Row], size: int) -> Iterator[list[Row]]:
    """Groups of `size`, until each row was used once; the last one is filled up from the beginning."""
    endless = cycle(rows)
    for _ in range(-(-len(rows) // size)):
        yield list(islice(endless, size))


def split(tensors: Tensors) -> list[Row]:
    """The rows of named arrays: values where there is one input, else objects."""
    if len(tensors) == 1:
        (array,) = tensors.values()
        return list(array)
    return [dict(zip(tensors, values, strict=True)) for values in zip(*tensors.values(), strict=True)]


def join(rows: Sequence[Row], inputs: Sequence[TensorSpec]) -> dict[str, Array]:
    """The named arrays of rows.

    Raises:
        BenchError: They do not have the model's form.
    """
    joined: dict[str, Array] = {}
    for spec in inputs:
        try:
            values = [row[spec.name] if isinstance(row, dict) else _only(row, inputs) for row in rows]
            array = np.asarray(values, dtype=spec.dtype)
        except KeyError as error:
            raise BenchError(f"a row lacks the input {spec.name!r}") from error
        except (TypeError, ValueError) as error:
            raise BenchError(f"the rows do not fit input {spec}: {error}") from error
        if array.ndim != len(spec.shape):
            raise BenchError(
                f"a row of input {spec} should have {len(spec.shape) - 1} dimensions, got {array.ndim - 1}"
            )
        joined[spec.name] = array
    return joined


def _only(row: Row, inputs: Sequence[TensorSpec]) -> Row:
    if len(inputs) > 1:
        names = ", ".join(spec.name for spec in inputs)
        raise BenchError(f"a row of this model is an object of {names}")
    return row


def _parse(path: Path, number: int, line: bytes) -> Row:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise BenchError(f"{path}, line {number}: {error}") from error
