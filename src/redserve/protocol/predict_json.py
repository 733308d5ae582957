"""The JSON of `/predict`: rows in, rows out, or named columns in, named columns out.

    {"instances": [row, ...]}         -> {"predictions": [row, ...]}
    {"inputs": {"name": [...], ...}}  -> {"outputs": {"name": [...], ...}}

A row is a value or a nested list (a model with one input), or an object of named inputs (any model). A row of the
answer is the output's value, or an object of named outputs when there are several. A model that is not row-wise takes
columns only: each is the whole tensor, as the model declares it. A key "parameters", which Vertex AI's clients may send
beside either, has no meaning to an ONNX model and is passed over.
"""

import struct
from collections.abc import Sequence
from typing import Any, Final, final

import msgspec
import numpy as np
import orjson

from redserve.engine.bfloat16 import is_bfloat16, is_float
from redserve.engine.tensors import Array, Tensors, TensorSpec
from redserve.errors import BadRequest, ModelError
from redserve.protocol.json_lists import LARGE_BYTES, explain, fixed_sizes, list_type, to_array
from redserve.protocol.messages import Body, Encoded, InferRequest
from redserve.protocol.structure import weigh_json

# Attributes of other modules are looked up here, and not for each request.
_UNSET: Final = msgspec.UNSET
_FLOAT32: Final = np.dtype(np.float32)
_Rows: Final = np.ndarray
_dumps: Final = orjson.dumps
_NUMPY: Final = orjson.OPT_SERIALIZE_NUMPY
_contiguous: Final = np.ascontiguousarray


@final
class PredictJson:
    """Codec of `/predict` for one model.

    Args:
        inputs: What the model takes; dimension 0 is the row when `row_wise`.
        outputs: What it returns.
        row_wise: Whether each entry along dimension 0 is a row of its own.
        row_wise_reason: Why not, for the error that a client of rows gets.
    """

    def __init__(
        self,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        row_wise: bool = True,
        row_wise_reason: str = "",
    ) -> None:
        self._inputs = tuple(inputs)
        self._output_names = tuple(spec.name for spec in outputs)
        self._row_wise = row_wise
        self._row_wise_reason = row_wise_reason
        self._fields = tuple(f"field_{index}" for index in range(len(inputs)))
        self._row_decoder = msgspec.json.Decoder(self._row(has_lengths=False))
        self._decoder = msgspec.json.Decoder(self._body(has_lengths=False))
        self._large_decoder = msgspec.json.Decoder(self._body(has_lengths=True))
        self._row_size = _vector_size(inputs)
        self._pack_row = struct.Struct(f"={self._row_size}f").pack if self._row_size else None
        self._input_name = inputs[0].name if inputs else ""

    def decode(self, body: Body, *, json_length: bytes = b"") -> InferRequest:
        """Read `{"instances": ...}` or `{"inputs": ...}`.

        Raises:
            BadRequest: Not JSON, not this form, not these element types, ragged, or out of range; says where.
        """
        message = _parse(self._decoder if len(body) <= LARGE_BYTES else self._large_decoder, body, "body")
        instances, columns = message.instances, message.inputs
        if columns is not _UNSET:
            if instances is not _UNSET:
                raise BadRequest("send either 'instances' or 'inputs', not both", where="$")
            return InferRequest(
                {
                    spec.name: to_array(getattr(columns, field), spec, f"$.inputs.{spec.name}")
                    for spec, field in zip(self._inputs, self._fields, strict=True)
                },
                form="columns",
            )
        if instances is _UNSET:
            raise BadRequest("send {'instances': [row, ...]} or {'inputs': {name: [...]}}", where="$")
        if not self._row_wise:
            raise self._has_no_rows()
        if self._pack_row is not None:
            try:
                packed = b"".join([self._pack_row(*row) for row in instances])
            except (struct.error, OverflowError, TypeError):
                pass  # rows of other lengths, numbers out of range, objects: what is wrong is found below
            else:
                if packed:
                    rows = _Rows((len(instances), self._row_size), _FLOAT32, packed)
                    # JSON has no NaN, no infinity: that is checked too
                    return InferRequest({self._input_name: rows}, "values", is_checked=True)
        return self._request_of(instances)

    def decode_lines(self, lines: Sequence[bytes]) -> InferRequest:
        """Read rows that come one a line (JSON Lines), each as it would stand in `instances`.

        Raises:
            BadRequest: As `decode`; a mistake in the third line is at `$.instances[2]`.
        """
        if not self._row_wise:
            raise self._has_no_rows()
        return self._request_of(
            [_parse(self._row_decoder, line, "line", top=f"$.instances[{row}]") for row, line in enumerate(lines)]
        )

    def parsed_bytes(self, body: Body, *, json_length: bytes = b"") -> int:
        """All of them."""
        return len(body)

    def weigh(self, body: Body, *, json_length: bytes = b"", most_rows: int) -> int:
        """All of it as JSON."""
        return weigh_json(body, self._inputs, most_rows=most_rows if self._row_wise else None)

    def place(self, request: InferRequest, where: str) -> str:
        """Where in the body `where` stands: `pixels[3][17]` is `$.instances[3][17]` in a request of plain rows."""
        if request.form == "columns":
            return f"$.inputs.{where}"
        name = max((spec.name for spec in self._inputs if where.startswith(spec.name)), key=len, default="")
        row, bracket, rest = where[len(name) :].partition("]")
        if request.form == "objects":
            return f"$.instances{row}{bracket}.{name}{rest}" if row else f"$.instances[*].{name}"
        return f"$.instances{row}{bracket}{rest}"

    def encode(self, request: InferRequest, outputs: Sequence[Array]) -> Encoded:
        """Write predictions, or outputs by name when the request came by name.

        Raises:
            ModelError: An output is NaN or infinite, which JSON cannot say.
        """
        if request.form == "columns":
            body = _dump("outputs", _columns(self._output_names, outputs))
        else:
            body = _dump("predictions", _rows(self._output_names, outputs))
        if body.find(b"null") >= 0:  # which takes less time than `in`
            self._refuse_null(body, outputs)
        return Encoded(body)

    def encode_lines(self, outputs: Sequence[Array]) -> list[bytes]:
        """Write each row of the answer as a line, as it would stand in `predictions`.

        Raises:
            ModelError: An output is NaN or infinite.
        """
        option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
        lines = [orjson.dumps(row, option=option) for row in _rows(self._output_names, outputs)]
        self._refuse_null(b"".join(lines), outputs)
        return lines

    def written_bytes(self, request: InferRequest, outputs: Sequence[Array]) -> int:
        """All of them."""
        return outputs[0].nbytes if len(outputs) == 1 else sum([output.nbytes for output in outputs])

    def encode_request(self, tensors: Tensors, *, by_column: bool) -> bytes:
        """Write the body that `decode` reads as `tensors`."""
        names = [spec.name for spec in self._inputs]
        columns = [tensors[name] for name in names]
        if by_column:
            return _dump("inputs", _columns(names, columns))
        return _dump("instances", _rows(names, columns))

    def _body(self, *, has_lengths: bool) -> type[msgspec.Struct]:
        rows: Any = list[self._row(has_lengths=has_lengths)] if self._row_wise else msgspec.Raw  # type: ignore[misc]
        return msgspec.defstruct(
            "Body",
            [
                ("instances", rows | msgspec.UnsetType, msgspec.UNSET),
                (
                    "inputs",
                    self._struct("Columns", by_row=False, has_lengths=has_lengths) | msgspec.UnsetType,
                    msgspec.UNSET,
                ),
                ("parameters", msgspec.Raw, msgspec.Raw()),
            ],
            forbid_unknown_fields=True,
        )

    def _row(self, *, has_lengths: bool) -> Any:
        by_name = self._struct("Row", by_row=True, has_lengths=has_lengths)
        if len(self._inputs) != 1:
            return by_name
        return self._type(self._inputs[0], by_row=True, has_lengths=has_lengths) | by_name

    def _type(self, spec: TensorSpec, *, by_row: bool, has_lengths: bool) -> Any:
        sizes = fixed_sizes(spec, row_wise=self._row_wise) if has_lengths else [None] * len(spec.shape)
        return list_type(spec.dtype, sizes[1:] if by_row else sizes)

    def _struct(self, name: str, *, by_row: bool, has_lengths: bool) -> Any:
        return msgspec.defstruct(
            name,
            [
                (field, self._type(spec, by_row=by_row, has_lengths=has_lengths))
                for field, spec in zip(self._fields, self._inputs, strict=True)
            ],
            rename=dict(zip(self._fields, (spec.name for spec in self._inputs), strict=True)),
            forbid_unknown_fields=True,
        )

    def _refuse_null(self, written: bytes, outputs: Sequence[Array]) -> None:
        """Raise if a null in `written` is what orjson made of NaN or infinity; a string may say "null" as well."""
        if b"null" not in written:
            return
        for name, output in zip(self._output_names, outputs, strict=True):
            if is_float(output.dtype) and not np.isfinite(output).all():
                raise ModelError(f"output {name!r} has a value that is not finite")

    def _has_no_rows(self) -> BadRequest:
        return BadRequest(f"this model takes 'inputs', not 'instances': {self._row_wise_reason}", where="$.instances")

    def _request_of(self, rows: list[Any]) -> InferRequest:
        if not rows:
            raise BadRequest("send at least one row", where="$.instances")
        named = [isinstance(row, msgspec.Struct) for row in rows]
        if not any(named):
            (spec,) = self._inputs
            return InferRequest({spec.name: to_array(rows, spec, "$.instances")}, form="values")
        if not all(named):
            odd = named.index(not named[0])
            raise BadRequest("rows are either all values or all objects", where=f"$.instances[{odd}]")
        return InferRequest(
            {
                spec.name: to_array([getattr(row, field) for row in rows], spec, "$.instances[*]." + spec.name)
                for spec, field in zip(self._inputs, self._fields, strict=True)
            },
            form="objects",
        )


def _vector_size(inputs: Sequence[TensorSpec]) -> int:
    """How many values a row has, where a model takes one vector of float32 a row; else 0.

    Such a row is packed by `struct`, which takes exactly so many numbers, refuses what overflows (with `=`; the native
    form would not), and needs a third of the time of numpy.
    """
    if len(inputs) != 1 or inputs[0].dtype != np.float32 or len(inputs[0].shape) != 2:
        return 0
    size = inputs[0].shape[1]
    return size if isinstance(size, int) else 0


def _parse(decoder: msgspec.json.Decoder[Any], text: Body, what: str, *, top: str = "$") -> Any:
    """What `text` says; `top` is where it stands in the body."""
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        message, place = explain(error)
        raise BadRequest(message, where=top + place.removeprefix("$")) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the {what} is not valid JSON: {error}") from error
    except RecursionError as error:
        raise BadRequest(f"the {what} is nested too deeply") from error


def _dump(key: str, value: Any) -> bytes:
    return _dumps({key: value}, None, _NUMPY)


def _columns(names: Sequence[str], tensors: Sequence[Array]) -> dict[str, Any]:
    return dict(zip(names, map(_to_json, tensors), strict=True))


def _rows(names: Sequence[str], tensors: Sequence[Array]) -> Any:
    """One value a row, or one object a row when there are several names."""
    if len(tensors) == 1:
        return _to_json(tensors[0])
    return [dict(zip(names, row, strict=True)) for row in zip(*map(_to_json, tensors), strict=True)]


def _to_json(output: Array) -> Any:
    """What orjson writes for `output`: itself where it can, Python objects for strings, and for values of one a row.

    ONNX Runtime's int64 arrays have numpy's `longlong` type, whose scalars orjson does not know.
    """
    kind, axes = output.dtype.kind, output.ndim
    if kind == "V" and is_bfloat16(output.dtype):
        output = output.astype(np.float32)
    elif kind == "O" or (axes < 2 and kind != "f"):
        return output.tolist()
    return _contiguous(output) if axes else output[()]
