"""One `.npy` body: the one input of a model, and its one output. Never a pickle.

    \\x93NUMPY, version, length, {'descr': '<f4', 'fortran_order': False, 'shape': (8, 64), }, data

The header is matched, not evaluated. Byte order and order of the axes are put right; the type has to be the model's.
Where one array of numbers cannot say the answer (several outputs, or text), it is the JSON of `/predict`.

Source: `numpy/lib/_format_impl.py`, versions 1.0 and 2.0; 3.0 differs only for structured arrays.
"""

import io
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from redserve.engine.tensors import Array, TensorSpec
from redserve.errors import BadRequest, UnsupportedMediaType
from redserve.protocol.binary_tensors import count_elements, to_bytes, view_numbers
from redserve.protocol.messages import Body, Encoded, InferRequest
from redserve.protocol.predict_json import PredictJson

CONTENT_TYPE = b"application/x-npy"

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {b"\x01\x00": 2, b"\x02\x00": 4}
_MOST_HEADER_BYTES = 4096  # 64 sizes of 19 digits are 1,300
_DESCR = re.compile(rb"""['"]descr['"]\s*:\s*(['"](?P<dtype>[<>|=]?[?biuf][0-9]{0,2})['"])?""")
_ORDER = re.compile(rb"""['"]fortran_order['"]\s*:\s*(True|False)""")
_SHAPE = re.compile(rb"""['"]shape['"]\s*:\s*\(([0-9, ]*)\)""")
_SIZE = re.compile(rb"[0-9]{1,18}")


class Npy:
    """Codec of `application/x-npy` for one model.

    Args:
        inputs: What the model takes.
        outputs: What it returns.
        row_wise: Whether each entry along dimension 0 is a row of its own.
        json: Writes the answers that are no single array of numbers.

    Raises:
        UnsupportedMediaType: The model has several inputs, or takes text.
    """

    def __init__(
        self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], *, row_wise: bool, json: PredictJson
    ) -> None:
        self._spec = only_numbers(inputs)
        self._form: Literal["values", "columns"] = "values" if row_wise else "columns"
        self._json = json
        self._has_one_output = len(outputs) == 1 and outputs[0].dtype.kind in "biuf"

    def decode(self, body: Body, *, json_length: bytes = b"") -> InferRequest:
        """Read an array, as a view of `body` where its byte order is the machine's.

        Raises:
            BadRequest: It is no `.npy`, not of the model's type or rank, or has more or fewer bytes than it says.
        """
        spec = self._spec
        dtype, is_fortran, shape, start = _parse_header(body)
        if dtype.newbyteorder("=") != spec.dtype:
            raise BadRequest(f"input {spec.name!r} must be {spec.dtype}, got {dtype.newbyteorder('=')}")
        expected = count_elements(spec, shape) * dtype.itemsize
        if len(body) - start != expected:
            raise BadRequest(f"shape {shape} of {dtype.name} takes {expected} bytes, {len(body) - start} came")
        stored = shape[::-1] if is_fortran else shape
        tensor = view_numbers(spec, stored, body, start, byte_order="<" if dtype.str[0] != ">" else ">")
        return InferRequest({spec.name: tensor.T if is_fortran else tensor}, self._form)

    def parsed_bytes(self, body: Body, *, json_length: bytes = b"") -> int:
        """None of the data."""
        return min(len(body), _MOST_HEADER_BYTES)

    def weigh(self, body: Body, *, json_length: bytes = b"", most_rows: int) -> int:
        """Nothing: the numbers are a view of the body."""
        return 0

    def place(self, request: InferRequest, where: str) -> str:
        """As it is: the input's name and the indices in its array."""
        return where

    def encode(self, request: InferRequest, outputs: Sequence[Array]) -> Encoded:
        """Write the one output as `.npy`, or several as the JSON of `/predict`.

        Raises:
            ModelError: Several outputs hold a value that JSON cannot say.
        """
        if not self._has_one_output:
            return self._json.encode(request, outputs)
        output = np.asarray(outputs[0], outputs[0].dtype.newbyteorder("<"), order="C")
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(output))
        return Encoded(header.getvalue() + to_bytes(output), content_type=CONTENT_TYPE)

    def written_bytes(self, request: InferRequest, outputs: Sequence[Array]) -> int:
        """None of the one output's."""
        return 0 if self._has_one_output else self._json.written_bytes(request, outputs)


def only_numbers(inputs: Sequence[TensorSpec]) -> TensorSpec:
    """The one input of a model that takes a single array of numbers.

    Raises:
        UnsupportedMediaType: It takes something else.
    """
    if len(inputs) != 1 or inputs[0].dtype.kind not in "biuf":
        taken = ", ".join(map(str, inputs))
        raise UnsupportedMediaType(f"this content type is one array of numbers, the model takes {taken}: send JSON")
    return inputs[0]


def _parse_header(body: Body) -> tuple[np.dtype[Any], bool, list[int], int]:
    """Type, whether the first axis is the fastest, shape, and where the data begins."""
    begin = bytes(body[:_MOST_HEADER_BYTES])
    length_bytes = _LENGTH_BYTES.get(begin[6:8])
    if not begin.startswith(_MAGIC) or length_bytes is None:
        raise BadRequest("the body is not a .npy file of version 1.0 or 2.0")
    header_start = 8 + length_bytes
    start = header_start + int.from_bytes(begin[8:header_start], "little")
    if start > len(body) or start > _MOST_HEADER_BYTES:
        raise BadRequest(f"the header of the .npy should end at byte {start}, of {len(body)} in all")
    header = begin[header_start:start]
    descr, order, shape = _DESCR.search(header), _ORDER.search(header), _SHAPE.search(header)
    if descr is None or order is None or shape is None:
        raise BadRequest("the header of the .npy does not say descr, fortran_order and shape")
    try:
        dtype = np.dtype((descr["dtype"] or b"O").decode())
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "biuf":
        raise BadRequest("the .npy is not of plain numbers: objects are pickles, which are never read here")
    sizes = [size.strip() for size in shape[1].split(b",")]
    if sizes[-1] == b"":  # `(3,)` and `()`
        sizes.pop()
    if not all(map(_SIZE.fullmatch, sizes)):
        raise BadRequest(f"the header of the .npy says shape ({shape[1][:80].decode('latin-1')})")
    return dtype, order[1] == b"True", [int(size) for size in sizes], start
