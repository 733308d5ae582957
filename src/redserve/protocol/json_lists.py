"""Lists that came as JSON, into arrays: nothing is rounded, wrapped or cut, and a mistake has its place.

    [[1, 2], [3, 4]]  ─ msgspec, as list_type says ─>  lists of the right elements  ─ to_array ─>  array of the dtype

numpy alone turns 1e39 into an infinite float32, and takes ragged lists of strings.
"""

import re
from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np

from redserve.engine.bfloat16 import is_bfloat16, is_float
from redserve.engine.tensors import Array, TensorSpec
from redserve.errors import BadRequest

LARGE_BYTES = 65_536
"""Of a longer text each list is held to its length while it is read: else `[],[],...` makes a list of three bytes."""

_LENGTH = re.compile(r"Expected `array` of length [<>]= (\d+)")


def fixed_sizes(spec: TensorSpec, *, row_wise: bool) -> list[int | None]:
    """What a request cannot choose of the sizes of `spec`; rows it can."""
    sizes = [size if isinstance(size, int) else None for size in spec.shape]
    return [None, *sizes[1:]] if row_wise and sizes else sizes


def list_type(dtype: np.dtype[Any], sizes: Sequence[int | None]) -> Any:
    """The Python type of a tensor: `list[list[float]]` is float32 of two dimensions.

    Args:
        dtype: Of its elements.
        sizes: Of its dimensions; the lists of one are held to it where it is known.
    """
    element: Any = float if is_float(dtype) else {"i": int, "u": int, "b": bool}.get(dtype.kind, str)
    for size in reversed(sizes):
        element = list[element]
        if size is not None:
            element = Annotated[element, msgspec.Meta(min_length=size, max_length=size)]
    return element


def explain(error: msgspec.ValidationError) -> tuple[str, str]:
    """What is wrong, and the path of the place, which begins with `$`."""
    message, _, place = str(error).partition(" - at `")
    return _LENGTH.sub(r"a list here must have \1 values", message), place.rstrip("`")


def to_array(values: Any, spec: TensorSpec, where: str) -> Array:
    """`values`, whose types are checked, as an array of `spec`'s dtype; the shape may still be wrong for the model.

    Args:
        values: A list, nested or not, or one element.
        spec: Whose name and dtype count.
        where: Of `values` in the body; `[*]` in it is the first index.

    Raises:
        BadRequest: The lists are ragged, or a number does not fit the dtype; `where` is its place.
    """
    try:
        with np.errstate(over="raise"):  # by itself numpy turns 1e39 into an infinite float32
            array = np.array(values, dtype=spec.dtype)
            if is_bfloat16(spec.dtype) and np.isinf(array).any():  # of which numpy hears nothing
                raise OverflowError("out of range")
    except (ValueError, OverflowError, FloatingPointError) as error:
        _refuse_ragged(values, spec, where)
        _refuse_out_of_range(values, spec, where)
        raise BadRequest(f"{spec.name!r} cannot be read: {error}", where=where) from error
    if array.dtype == object and array.ndim < len(spec.shape):  # numpy keeps lists of strings that are ragged
        _refuse_ragged(values, spec, where)
    return array


def _refuse_ragged(values: Any, spec: TensorSpec, where: str) -> None:
    """Raise if a list is not as long as the first of its level; looks at lengths alone, level by level."""
    level: list[Any] = [values]
    sizes: list[int] = []
    while level and isinstance(level[0], list):
        lengths = list(map(len, level))
        if lengths.count(lengths[0]) != len(lengths):
            odd = next(index for index, length in enumerate(lengths) if length != lengths[0])
            message = f"{spec.name!r} has {lengths[odd]} values here, {lengths[0]} before"
            raise BadRequest(message, where=_place(where, odd, sizes))
        sizes.append(lengths[0])
        level = list(chain.from_iterable(level))


def _refuse_out_of_range(values: Any, spec: TensorSpec, where: str) -> None:
    """Raise if a number does not fit; of lists that are not ragged."""
    flat: list[Any] = [values]
    sizes: list[int] = []
    while flat and isinstance(flat[0], list):
        sizes.append(len(flat[0]))
        flat = list(chain.from_iterable(flat))
    index = _find_misfit(flat, spec.dtype)
    if index is not None:
        raise BadRequest(f"{flat[index]} does not fit {spec.dtype}", where=_place(where, index, sizes))


def _find_misfit(numbers: list[Any], dtype: np.dtype[Any]) -> int | None:
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        least, most = int(limits.min), int(limits.max)
        return next((index for index, number in enumerate(numbers) if not least <= number <= most), None)
    if is_float(dtype):
        with np.errstate(over="ignore"):
            overflows = np.isinf(np.array(numbers, dtype)) & np.isfinite(np.array(numbers, np.float64))
        return int(overflows.argmax()) if overflows.any() else None
    return None


def _place(where: str, index: int, sizes: Sequence[int]) -> str:
    """The path below `where` of entry `index`, counted over nested lists of these `sizes`."""
    path: list[int] = []
    for size in reversed(sizes):
        index, position = divmod(index, size)
        path.insert(0, position)
    for position in path:
        where = where.replace("[*]", f"[{position}]", 1) if "[*]" in where else f"{where}[{position}]"
    return where
