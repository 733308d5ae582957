"""Tensors as bare bytes: little endian, row major, no padding; views of the body where that is possible.

numbers   element, element, ...
strings   length (4 bytes, little endian), UTF-8, length, UTF-8, ...
"""

import math
import struct
import sys
from collections.abc import Sequence
from typing import Literal

import numpy as np

from redserve.engine.tensors import Array, TensorSpec
from redserve.errors import BadRequest, ModelError
from redserve.protocol.messages import Body

_MOST_BYTES = 2**63 - 1
_LENGTH = struct.Struct("<I")
_OWN_ORDER = "<" if sys.byteorder == "little" else ">"


def count_elements(spec: TensorSpec, shape: Sequence[int], *, where: str | None = None) -> int:
    """How many elements a tensor of `shape` has; nothing is allocated for a shape that lies.

    Raises:
        BadRequest: Its rank is not the model's, a size is negative, or it cannot be in any memory.
    """
    if len(shape) != len(spec.shape):
        raise BadRequest(
            f"input {spec} must have {len(spec.shape)} dimensions, got {len(shape)}"
            + (f" in shape {list(shape)}" if len(shape) <= 8 else ""),
            where=where,
        )
    if any(size < 0 for size in shape):
        raise BadRequest(f"input {spec.name!r} has a negative size in shape {list(shape)}", where=where)
    if math.prod(size or 1 for size in shape) * spec.dtype.itemsize > _MOST_BYTES:
        raise BadRequest(f"input {spec.name!r} is too large: shape {list(shape)}", where=where)
    return math.prod(shape)


def view_numbers(
    spec: TensorSpec,
    shape: Sequence[int],
    body: Body,
    start: int,
    *,
    byte_order: Literal["<", ">"] = "<",
    where: str | None = None,
) -> Array:
    """The numbers of `shape` that begin at `start`, which are there: a view if their byte order is the machine's.

    The view may be unaligned, and cannot be written.

    Raises:
        BadRequest: A boolean is neither 0 nor 1.
    """
    dtype = spec.dtype
    count = math.prod(shape)
    if not count:
        return np.empty(shape, dtype)
    if dtype.kind == "b" and (np.frombuffer(body, np.uint8, count, start) > 1).any():
        raise BadRequest(f"input {spec.name!r} has a boolean that is neither 0 nor 1", where=where)
    if byte_order == _OWN_ORDER:
        return np.frombuffer(body, dtype, count, start).reshape(shape)
    return np.frombuffer(body, dtype.newbyteorder(byte_order), count, start).astype(dtype).reshape(shape)


def read_strings(
    spec: TensorSpec, shape: Sequence[int], body: Body, start: int, end: int, *, where: str | None = None
) -> Array:
    """The strings of `shape` that lie from `start` to `end`, exactly.

    Raises:
        BadRequest: There are fewer or more, a length lies, or one is not UTF-8.
    """
    count = math.prod(shape)
    texts: list[str] = []
    position = start
    while position < end and len(texts) < count:
        text_start = position + _LENGTH.size
        if text_start > end:
            raise BadRequest(f"input {spec.name!r} is cut off in the length of string {len(texts)}", where=where)
        (length,) = _LENGTH.unpack_from(body, position)
        position = text_start + length
        if position > end:
            raise BadRequest(
                f"string {len(texts)} of input {spec.name!r} should have {length} bytes, {end - text_start} are there",
                where=where,
            )
        try:
            texts.append(str(body[text_start:position], "utf-8"))
        except UnicodeDecodeError as error:
            raise BadRequest(
                f"string {len(texts)} of input {spec.name!r} is not UTF-8: {error}", where=where
            ) from error
    if len(texts) < count:
        raise BadRequest(
            f"input {spec.name!r} has {len(texts)} strings, shape {list(shape)} takes {count}", where=where
        )
    if position < end:
        raise BadRequest(
            f"input {spec.name!r} has {end - position} bytes after the {count} strings that shape {list(shape)} takes",
            where=where,
        )
    array = np.empty(count, np.object_)
    array[:] = texts
    return array.reshape(shape)


def to_bytes(output: Array) -> bytes | memoryview:
    """The bytes of `output`; those of contiguous numbers are its own memory.

    Raises:
        ModelError: A string is no Unicode text.
    """
    if output.dtype.kind == "O":
        parts: list[bytes] = []
        try:
            for text in output.flat:
                encoded = text.encode()
                parts += (_LENGTH.pack(len(encoded)), encoded)
        except UnicodeEncodeError as error:
            raise ModelError(f"an output has a string that is no text: {error}") from error
        return b"".join(parts)
    little = output.astype(output.dtype.newbyteorder("<"), copy=False)
    return np.ascontiguousarray(little).reshape(-1).view(np.uint8).data
