"""One input of a model, out of an Open Inference request: from JSON, from binary data, or from a whole raw body."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from redserve.engine.tensors import Array, TensorSpec
from redserve.errors import BadRequest
from redserve.protocol.binary_tensors import count_elements, read_strings, view_numbers
from redserve.protocol.datatypes import BINARY_ONLY, datatype_of
from redserve.protocol.json_lists import LARGE_BYTES, fixed_sizes, list_type, to_array
from redserve.protocol.messages import Body
from redserve.protocol.open_inference_head import Input, is_count, misfit

_LIST = re.compile(rb"\s*\[")
_LIST_OF_LISTS = re.compile(rb"\s*\[\s*\[")
_NULL = re.compile(rb"\s*null")


class InputReader:
    """Reads the input that `spec` describes; its dimension 0 is the row where the model is `row_wise`."""

    def __init__(self, spec: TensorSpec, *, row_wise: bool) -> None:
        self._spec = spec
        self._datatype = datatype_of(spec.dtype)
        self._flat_type = list_type(spec.dtype, [None])
        self._nested_type = list_type(spec.dtype, [None] * len(spec.shape))
        self._flat = msgspec.json.Decoder(self._flat_type)
        self._nested = msgspec.json.Decoder(self._nested_type)
        self._large_nested = msgspec.json.Decoder(list_type(spec.dtype, fixed_sizes(spec, row_wise=row_wise)))

    def read(self, given: Input[Any], body: Body, start: int, *, where: str) -> tuple[Array, int]:
        """Read one entry of `inputs`.

        Args:
            given: The entry.
            body: The whole request.
            start: Where in it the next binary data begins.
            where: The path of the entry.

        Returns:
            The tensor, and where the next binary data begins behind it.

        Raises:
            BadRequest: Its datatype is not the model's, or shape, data and size do not fit each other.
        """
        name = self._spec.name
        if given.datatype != self._datatype:
            raise BadRequest(
                f"input {name!r} must be {self._datatype}, got {given.datatype[:40]!r}", where=f"{where}.datatype"
            )
        count = count_elements(self._spec, given.shape, where=f"{where}.shape")
        parameters = given.parameters or {}
        size_bytes = parameters.get("binary_data_size")
        if any(key.startswith("shared_memory_") for key in parameters):
            raise BadRequest(f"input {name!r}: shared memory is not served here", where=f"{where}.parameters")
        if (size_bytes is None) == _is_absent(given.data):
            has = "neither" if size_bytes is None else "both"
            raise BadRequest(f"input {name!r} needs one of 'data' and 'binary_data_size', it has {has}", where=where)
        if size_bytes is None:
            return self._read_json(given.data, given.shape, count, where=f"{where}.data"), start
        if not is_count(size_bytes) or not isinstance(size_bytes, int):
            raise BadRequest(
                f"'binary_data_size' must be a non-negative integer, not {size_bytes!r}", where=f"{where}.parameters"
            )
        return self._read_binary(given.shape, count, body, start, size_bytes, where=where), start + size_bytes

    def read_raw(self, body: Body, *, row_wise: bool) -> Array:
        """Read a body that is the one input and nothing else; one row of it where the model is `row_wise`.

        Raises:
            BadRequest: The model's shape leaves open what the bytes mean, or they are too few or too many.
        """
        spec = self._spec
        sizes = [size if isinstance(size, int) else None for size in spec.shape]
        if row_wise:
            sizes[0] = 1
        if spec.dtype.kind == "O":
            if any(size != 1 for size in sizes):
                raise BadRequest(f"a raw binary request is one string, input {spec} must have shape [1] for that")
            body = len(body).to_bytes(4, "little") + body
            return read_strings(spec, [1] * len(sizes), body, 0, len(body))
        if sizes.count(None) > 1:
            raise BadRequest(f"input {spec} has more than one variable-sized dimension: its shape has to be sent")
        known = spec.dtype.itemsize
        for size in sizes:
            known *= 1 if size is None else size
        variable = len(body) // known if known else 0
        shape = [variable if size is None else size for size in sizes]
        expected = known * (variable if None in sizes else 1)
        if len(body) != expected:
            raise BadRequest(f"unexpected size for input {spec}: {len(body)} bytes, shape {shape} takes {expected}")
        return view_numbers(spec, shape, body, 0)

    def _read_binary(
        self, shape: Sequence[int], count: int, body: Body, start: int, size_bytes: int, *, where: str
    ) -> Array:
        spec = self._spec
        end = start + size_bytes
        expected = count * spec.dtype.itemsize
        if spec.dtype.kind != "O" and size_bytes != expected:
            raise BadRequest(
                f"unexpected size for input {spec.name!r}: shape {list(shape)} of {self._datatype} takes {expected} "
                f"bytes, 'binary_data_size' is {size_bytes}",
                where=f"{where}.parameters.binary_data_size",
            )
        if end > len(body):
            raise BadRequest(
                f"unexpected size for input {spec.name!r}: {end - len(body)} of its {size_bytes} bytes are missing",
                where=where,
            )
        if spec.dtype.kind == "O":
            return read_strings(spec, shape, body, start, end, where=where)
        return view_numbers(spec, shape, body, start, where=where)

    def _read_json(self, data: Any, shape: list[int], count: int, *, where: str) -> Array:
        """From a flat list, or one nested as the shape says."""
        spec = self._spec
        if self._datatype in BINARY_ONLY:
            raise BadRequest(f"input {spec.name!r} is {self._datatype}, which has to come as binary data", where=where)
        if isinstance(data, msgspec.Raw):
            is_nested = bool(_LIST_OF_LISTS.match(data) if shape else not _LIST.match(data))
        else:
            is_nested = isinstance(data[0] if shape and isinstance(data, list) and data else data, list) == bool(shape)
        try:
            if isinstance(data, msgspec.Raw):
                nested = self._nested if len(data) <= LARGE_BYTES else self._large_nested
                values = (nested if is_nested else self._flat).decode(data)
            else:
                values = msgspec.convert(data, self._nested_type if is_nested else self._flat_type)
        except msgspec.ValidationError as error:
            raise misfit(error, below=where) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(f"the data of input {spec.name!r} is not valid JSON: {error}", where=where) from error
        array = to_array(values, spec, where)
        if array.shape == tuple(shape):
            return array
        if not is_nested and array.size == count:
            return array.reshape(shape)
        raise BadRequest(
            f"input {spec.name!r} has {array.size} values in shape {list(array.shape)}, shape {shape} takes {count}",
            where=where,
        )


def _is_absent(data: Any) -> bool:
    if isinstance(data, msgspec.Raw):
        return _NULL.match(data) is not None
    return data is msgspec.UNSET or data is None
