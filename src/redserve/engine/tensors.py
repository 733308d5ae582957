"""Named arrays: what a model asks for, and whether a request has it.

    request's tensors ─ check_tensors ─> rows ─ group_of ─> what may share a batch

Everything that would harm a neighbour in the same batch is refused here, before queueing. ONNX Runtime itself misreads
big-endian arrays, broadcasts inputs of unequal batch sizes and accepts NaN and empty batches, all without a word.
"""

import sys
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from redserve.engine.bfloat16 import BFLOAT16, is_float
from redserve.errors import BadRequest, ModelError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Tensors: TypeAlias = Mapping[str, Array]
"""A request, or a batch: one array an input name."""

_DTYPE_BY_ONNX_TYPE: Mapping[str, np.dtype[Any]] = {
    "tensor(bfloat16)": BFLOAT16,
    "tensor(bool)": np.dtype(np.bool_),
    "tensor(double)": np.dtype(np.float64),
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int16)": np.dtype(np.int16),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(string)": np.dtype(np.object_),
    "tensor(uint16)": np.dtype(np.uint16),
    "tensor(uint32)": np.dtype(np.uint32),
    "tensor(uint64)": np.dtype(np.uint64),
    "tensor(uint8)": np.dtype(np.uint8),
}


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: As the model calls it.
        dtype: Of every array, in native byte order; strings are `object` arrays of `str`.
        shape: A size per axis; `None` is any size, a `str` is a symbol: any size, but the same wherever it stands.
        is_exact: An output must have this shape. An ONNX file's outputs are not held to it: exporters leave the
            sizes of the traced example there.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]
    is_exact: bool = field(default=True, compare=False)

    @classmethod
    def from_onnx(cls, name: str, onnx_type: str, shape: Sequence[int | str | None]) -> "TensorSpec":
        """Translate what ONNX Runtime says of an input or output.

        Args:
            name: Its name.
            onnx_type: Its type, such as `tensor(float)`.
            shape: Its sizes; `"?"`, `""`, `None` and negative numbers are anonymous.

        Raises:
            ValueError: The type has no numpy counterpart here: sequences, maps, float8.
        """
        dtype = _DTYPE_BY_ONNX_TYPE.get(onnx_type)
        if dtype is None:
            known = ", ".join(sorted(_DTYPE_BY_ONNX_TYPE))
            hint = "; skl2onnx writes tensors with options={'zipmap': False}" if onnx_type.startswith("seq(map") else ""
            raise ValueError(f"{name!r} is of type {onnx_type}, but only these can be served: {known}{hint}")
        return cls(name, dtype, tuple(_size(size) for size in shape))

    def __str__(self) -> str:
        """Like `pixels float32 [batch, 64]`."""
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} {dtype_name(self.dtype)} [{sizes}]"


def _size(size: int | str | None) -> int | str | None:
    if isinstance(size, int):
        return size if size >= 0 else None
    return None if size in ("", "?") else size


def dtype_name(dtype: np.dtype[Any]) -> str:
    """What people call a dtype: `float32`, `int64`, `string`."""
    if dtype.kind == "O":
        return "string"
    return dtype.name if dtype.isnative else f"{dtype.name} in foreign byte order"


def check_tensors(specs: Sequence[TensorSpec], tensors: Tensors, *, row_wise: bool, finite: bool) -> int:
    """Check a request against the model's inputs. Nothing is converted: the codec already chose the dtype.

    Args:
        specs: The model's inputs.
        tensors: The request.
        row_wise: Axis 0 of every input counts rows; a fixed size that the model has there is the runner's business.
        finite: Refuse NaN and infinities in floating-point inputs.

    Returns:
        Its rows; 1 where the model is not row-wise.

    Raises:
        BadRequest: Names, dtype, byte order, rank, fixed sizes, sizes that share a symbol, unequal or no rows,
            strings that are not text, or values that are not finite. `where` is the place below the inputs, such as
            `pixels` or `pixels[3][17]`.
    """
    plain = _plain(specs[0], tensors) if row_wise and len(specs) == 1 else None
    if plain is not None and (not finite or np.count_nonzero(np.isfinite(plain)) == plain.size):
        return len(plain)
    rows: int | None = None
    size_by_symbol: dict[str, tuple[int, str]] = {}
    for spec in specs:
        name = spec.name
        tensor = tensors.get(name)
        if tensor is None or len(tensors) != len(specs):
            raise _wrong_names(specs, tensors)
        dtype, shape = spec.dtype, tensor.shape
        if tensor.dtype != dtype:
            got, wanted = dtype_name(tensor.dtype), dtype_name(dtype)
            raise BadRequest(f"input {name!r} must be {wanted}, got {got}", where=name)
        if len(shape) != len(spec.shape) or (row_wise and not shape):
            raise _wrong_shape(spec, shape, f"{len(spec.shape)} dimensions", f"{len(shape)}")
        for axis, wanted_size in enumerate(spec.shape):
            size = shape[axis]
            if axis == 0 and row_wise:
                if size == 0:
                    raise BadRequest(f"input {name!r} has no rows, at least one is needed", where=name)
                if rows is None:
                    rows = size
                elif size != rows:
                    raise BadRequest(f"input {name!r} has {size} rows, but {specs[0].name!r} has {rows}", where=name)
                if type(wanted_size) is int:
                    continue
            if wanted_size is None or size == wanted_size:
                continue
            if type(wanted_size) is int:
                raise _wrong_shape(spec, shape, f"{wanted_size} along axis {axis}", f"{size}")
            seen, place = size_by_symbol.setdefault(str(wanted_size), (size, f"axis {axis} of {name!r}"))
            if seen != size:
                raise _wrong_shape(
                    spec, shape, f"{seen} along axis {axis}, as {wanted_size!r} is on {place}", f"{size}"
                )
        if finite and is_float(dtype):
            index = find_not_finite(tensor)
            if index is not None:
                raise BadRequest(f"input {name!r} holds {tensor[index]}{_place(index)}", where=_path(name, index))
        elif dtype.kind == "O":
            _check_text(name, tensor)
    if len(tensors) != len(specs):
        raise _wrong_names(specs, tensors)
    return 1 if rows is None else rows


def _plain(spec: TensorSpec, tensors: Tensors) -> Array | None:
    """The one input of a request, where it is of floats and just as the model declares it: nothing else is to check."""
    tensor = tensors.get(spec.name)
    if tensor is None or len(tensors) != 1 or spec.dtype.kind != "f" or tensor.dtype != spec.dtype:
        return None
    shape = tensor.shape
    return tensor if shape and shape[0] and shape[1:] == spec.shape[1:] else None


def find_not_finite(array: Array) -> tuple[int, ...] | None:
    """The index of the first NaN or infinity, or `None`; of floating-point arrays only.

    `count_nonzero` beats `.all()`: 0.7 us against 1.4 us on a row of 64 (`benchmarks/results/engine_cost.json`).
    """
    finite = np.isfinite(array)
    if np.count_nonzero(finite) == array.size:
        return None
    return tuple(int(axis) for axis in np.unravel_index(int(np.argmin(finite)), array.shape))


def group_of(tensors: Tensors) -> Hashable:
    """What requests must have in common to share a batch, beyond the model: the sizes behind axis 0."""
    if len(tensors) == 1:
        return tuple(next(iter(tensors.values())).shape[1:])
    return tuple(sorted((name, tensor.shape[1:]) for name, tensor in tensors.items()))


def size_bytes_of(tensors: Tensors) -> int:
    """The memory a request holds while it waits, its strings included."""
    return sum(
        tensor.nbytes + (sum(map(sys.getsizeof, tensor.flat)) if tensor.dtype.kind == "O" else 0)
        for tensor in tensors.values()
    )


def split_rows(tensors: Tensors, max_rows: int) -> list[tuple[Tensors, int]]:
    """Cut a request into parts of at most `max_rows` rows, in order, each with its rows; the parts are views."""
    rows = next(iter(tensors.values())).shape[0]
    return [
        ({name: tensor[start : start + max_rows] for name, tensor in tensors.items()}, min(max_rows, rows - start))
        for start in range(0, rows, max_rows)
    ]


def join_rows(parts: Sequence[Sequence[Array]]) -> list[Array]:
    """Put the results of a request's parts together again, output by output.

    Raises:
        ModelError: The parts answered in shapes that do not fit together.
    """
    if len(parts) == 1:
        return list(parts[0])
    try:
        return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]
    except ValueError as error:
        raise ModelError(f"the results of a split request do not fit together: {error}") from error


def _wrong_names(specs: Sequence[TensorSpec], tensors: Tensors) -> BadRequest:
    wanted, given = [spec.name for spec in specs], list(tensors)
    missing = [name for name in wanted if name not in tensors]
    unexpected = [name for name in given if name not in wanted]
    said = [
        f"{word} {', '.join(map(repr, names))}"
        for word, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    return BadRequest(f"{' and '.join(said)}: the inputs are {', '.join(map(repr, wanted))}")


def _wrong_shape(spec: TensorSpec, shape: tuple[int, ...], wanted: str, got: str) -> BadRequest:
    return BadRequest(f"input {spec} must have {wanted}, got {got} in shape {list(shape)}", where=spec.name)


def _check_text(name: str, tensor: Array) -> None:
    """ONNX Runtime writes `None` as "None" and fails on a lone surrogate, which costs the whole batch."""
    try:
        "".join(tensor.flat).encode()
    except (TypeError, UnicodeEncodeError):
        for index, item in np.ndenumerate(tensor):
            if not isinstance(item, str):
                problem = f"not a string but a {type(item).__name__}"
            elif any("\ud800" <= character <= "\udfff" for character in item):
                problem = "text with a lone surrogate"
            else:
                continue
            raise BadRequest(f"input {name!r} holds {problem}{_place(index)}", where=_path(name, index)) from None


def _place(index: tuple[int, ...]) -> str:
    return f" at index {list(index)}" if index else ""


def _path(name: str, index: tuple[int, ...]) -> str:
    return name + "".join(f"[{axis}]" for axis in index)
