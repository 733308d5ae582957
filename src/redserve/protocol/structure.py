"""What reading a large body will make, by what it is made of: counted before it is read, without the GIL.

A Python list for each bracket and a float for each comma take up to 35 times the bytes that were sent, and while they
are made nothing else runs. Source: measured, CPython 3.11: 40 bytes for each number of a list, 75 for each empty list,
140 for each list of one number, 71 for each short string, 103 for each key of an object, 270 for each input without
data.
"""

import math
from collections.abc import Sequence

import numpy as np

from redserve.engine.tensors import TensorSpec
from redserve.errors import TooMuchToRead

_JSON_WEIGHTS = {b",": 40, b"[": 100, b"{": 100, b'"': 24}
_FEW_VALUES = 100_000
"""So many are read whatever they are, in 4 ms, since then the mistake has its place."""

_NUL_WEIGHT = 24
"""The length of a string of fewer than 256 bytes has three of them, and the string takes 72."""


def weigh_json(text: bytes | memoryview, inputs: Sequence[TensorSpec], *, most_rows: int | None) -> int:
    """About how many bytes reading `text` makes.

    Args:
        text: JSON, or what is sent for it.
        inputs: Of the model.
        most_rows: That a request may have; `None` where it has no rows.

    Raises:
        TooMuchToRead: It has twice as many values as so many rows can have, where that is known, or more.
    """
    commas, *others = (_count(text, letter) for letter in _JSON_WEIGHTS)
    row_values = _values_of_a_row(inputs)
    if most_rows is not None and row_values is not None and commas > max(2 * most_rows * row_values, _FEW_VALUES):
        raise TooMuchToRead(
            f"the body has about {commas} values, and only {most_rows} rows of {row_values} may wait: "
            "send fewer at a time"
        )
    return sum(weight * count for weight, count in zip(_JSON_WEIGHTS.values(), (commas, *others), strict=True))


def weigh_strings(data: bytes | memoryview) -> int:
    """About how many bytes reading binary strings makes."""
    return _NUL_WEIGHT * _count(data, b"\0")


def _count(data: bytes | memoryview, letter: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == letter[0]))


def _values_of_a_row(inputs: Sequence[TensorSpec]) -> int | None:
    """`None` where the model leaves it open; a string may have any number of commas."""
    sizes = [size for spec in inputs for size in spec.shape[1:]]
    if any(not isinstance(size, int) for size in sizes) or any(spec.dtype.kind == "O" for spec in inputs):
        return None
    return sum(math.prod(size for size in spec.shape[1:] if isinstance(size, int)) for spec in inputs)
