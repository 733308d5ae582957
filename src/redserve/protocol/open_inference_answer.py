"""The answer to an Open Inference request: JSON, and behind it the binary outputs, in the order of `outputs`.

    {"id"?, "model_name", "model_version", "outputs": [{"name", "datatype", "shape", "data" or "parameters"}]}

`data` is flat. NaN and infinities are bare tokens, as Python's `json` writes and reads them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from redserve.engine.tensors import Array, TensorSpec
from redserve.errors import BadRequest, ModelError
from redserve.protocol.binary_tensors import to_bytes
from redserve.protocol.classification import largest_classes
from redserve.protocol.datatypes import BINARY_ONLY, datatype_of
from redserve.protocol.messages import Asked, AskedOutput, Encoded
from redserve.protocol.open_inference_head import Output, is_count

_NULL = b"null"
_TOKENS = {"nan": b"NaN", "inf": b"Infinity", "-inf": b"-Infinity"}


class AnswerWriter:
    """Knows what may be asked of a model's outputs, and writes them.

    Args:
        outputs: What the model returns, in this order.
        model_name: Its name.
        model_version: Its version.
        row_wise: Whether each entry along dimension 0 is a row of its own.
        labels: Of the classes of an output, by its name.
    """

    def __init__(
        self,
        outputs: Sequence[TensorSpec],
        *,
        model_name: str,
        model_version: str,
        row_wise: bool,
        labels: Mapping[str, Sequence[str]],
    ) -> None:
        self._specs = tuple(outputs)
        self._index = {spec.name: index for index, spec in enumerate(outputs)}
        self._model = {"model_name": model_name, "model_version": model_version}
        self._row_wise = row_wise
        self._labels = labels

    def asked(self, outputs: Sequence[Output], *, is_binary: bool, request_id: str = "") -> Asked:
        """What a request asks for.

        Args:
            outputs: As it lists them; none are all of the model's.
            is_binary: How they come where it lists none.
            request_id: Its name for itself.

        Raises:
            BadRequest: It names an output twice, or one that the model does not have, or asks for what cannot be.
        """
        if not outputs:
            everything = tuple(AskedOutput(index, is_binary) for index in range(len(self._specs)))
            for each in everything:
                self._check(each, where="$.outputs")
            return Asked(everything, request_id)
        asked: dict[int, AskedOutput] = {}
        for position, output in enumerate(outputs):
            where = f"$.outputs[{position}]"
            index = self._index.get(output.name)
            if index is None:
                known = ", ".join(map(repr, self._index))
                raise BadRequest(f"unexpected output {output.name!r}: the outputs are {known}", where=where)
            if index in asked:
                raise BadRequest(f"output {output.name!r} is asked for more than once", where=where)
            asked[index] = _asked_output(index, output, where=f"{where}.parameters")
            self._check(asked[index], where=where)
        return Asked(tuple(asked.values()), request_id)

    def write(self, asked: Asked, outputs: Sequence[Array]) -> Encoded:
        """Write the answer; `outputs` come in the model's order.

        Raises:
            ModelError: An output has a type that the protocol has no name for, or a string that is no text.
        """
        heads: list[dict[str, Any]] = []
        tails: list[bytes | memoryview] = []
        for each in asked.outputs:
            name = self._specs[each.index].name
            output = outputs[each.index]
            if each.classes:
                labels = self._labels.get(name, ())
                output = largest_classes(output, each.classes, labels=labels, row_wise=self._row_wise)
            head: dict[str, Any] = {"name": name, "datatype": _datatype_of(name, output), "shape": list(output.shape)}
            if each.is_binary:
                tails.append(to_bytes(output))
                head["parameters"] = {"binary_data_size": len(tails[-1])}
            else:
                head["data"] = orjson.Fragment(_flat_json(name, output))
            heads.append(head)
        answer = orjson.dumps(({"id": asked.id} if asked.id else {}) | self._model | {"outputs": heads})
        if not any(map(len, tails)):
            return Encoded(answer)
        return Encoded(
            b"".join((answer, *tails)),
            content_type=b"application/octet-stream",
            headers=((b"inference-header-content-length", str(len(answer)).encode()),),
        )

    def written_bytes(self, asked: Asked, outputs: Sequence[Array]) -> int:
        """Those of JSON outputs, strings and classes; binary numbers are copied at once."""
        return sum(
            outputs[each.index].nbytes
            for each in asked.outputs
            if not each.is_binary or each.classes or outputs[each.index].dtype.kind == "O"
        )

    def _check(self, each: AskedOutput, *, where: str) -> None:
        spec = self._specs[each.index]
        datatype = datatype_of(spec.dtype)
        if each.classes and datatype == "BYTES":
            raise BadRequest(f"output {spec.name!r} is BYTES, which has no classes", where=where)
        if datatype in BINARY_ONLY and not each.is_binary and not each.classes:
            raise BadRequest(
                f"output {spec.name!r} is {datatype}, which only comes as binary data: ask for that with 'binary_data'",
                where=where,
            )


def _asked_output(index: int, output: Output, *, where: str) -> AskedOutput:
    parameters = output.parameters or {}
    if any(key.startswith("shared_memory_") for key in parameters):
        raise BadRequest(f"output {output.name!r}: shared memory is not served here", where=where)
    is_binary = parameters.get("binary_data") or False
    if not isinstance(is_binary, bool):
        raise BadRequest(f"'binary_data' must be true or false, not {is_binary!r}", where=where)
    classes = parameters.get("classification") or 0
    if not is_count(classes) or not isinstance(classes, int):  # in this order: compiled, an `int` is no bool any more
        raise BadRequest(f"'classification' must be a non-negative integer, not {classes!r}", where=where)
    return AskedOutput(index, is_binary, classes)


def _datatype_of(name: str, output: Array) -> str:
    try:
        return datatype_of(output.dtype)
    except ValueError as error:
        raise ModelError(f"output {name!r} cannot be sent: {error}") from error


def _flat_json(name: str, output: Array) -> bytes:
    """A JSON list of all elements; orjson writes NaN and infinities as null, in whose places their tokens are put."""
    if output.dtype.kind == "O":
        try:
            return orjson.dumps(output.reshape(-1).tolist())
        except TypeError as error:
            raise ModelError(f"output {name!r} has a string that is no text: {error}") from error
    flat = np.ascontiguousarray(output).reshape(-1)
    text = orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY)
    if flat.dtype.kind != "f" or _NULL not in text:
        return text
    tokens = (_TOKENS[str(value)] for value in flat[~np.isfinite(flat)])
    first, *rest = text.split(_NULL)
    return first + b"".join(token + part for token, part in zip(tokens, rest, strict=True))
