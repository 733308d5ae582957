"""The Open Inference Protocol, version 2, over HTTP: JSON, and Triton's extension for binary tensors.

    Inference-Header-Content-Length   request body
    absent                            JSON
    n > 0                             JSON of n bytes, then the binary tensors back to back, in the order of `inputs`
    0                                 one tensor and nothing else; every output comes back binary

Source: `kserve/open-inference-protocol: specification/protocol/inference_rest.md`; `triton-inference-server/server:
docs/protocol/extension_binary_data.md`. Where the document and Triton's code differ, as on `binary_data_output` beside
a list of outputs, the code is followed.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import final

from redserve.engine.tensors import Array, TensorSpec
from redserve.errors import BadRequest
from redserve.protocol.messages import Asked, Body, Encoded, InferRequest
from redserve.protocol.open_inference_answer import AnswerWriter
from redserve.protocol.open_inference_head import check_parameters, parse_head
from redserve.protocol.open_inference_input import InputReader
from redserve.protocol.open_inference_known import MAX_KNOWN_BYTES, KnownHeads
from redserve.protocol.structure import weigh_json, weigh_strings

_NAMES_TOLD = 8
_LENGTH = re.compile(rb"[0-9]{1,10}")


@final
class OpenInference:
    """Codec of `/v2/models/{name}/infer` for one version of one model.

    Args:
        inputs: What the model takes; dimension 0 is the row when `row_wise`.
        outputs: What it returns.
        model_name: For the answer.
        model_version: For the answer.
        row_wise: Whether each entry along dimension 0 is a row of its own.
        labels: Of the classes of an output, by its name.
    """

    def __init__(
        self,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        model_name: str,
        model_version: str,
        row_wise: bool = True,
        labels: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._specs = tuple(inputs)
        self._inputs = {spec.name: InputReader(spec, row_wise=row_wise) for spec in inputs}
        self._known = KnownHeads(inputs)
        self._row_wise = row_wise
        self._has_strings = any(spec.dtype.kind == "O" for spec in inputs)
        self._answer = AnswerWriter(
            outputs, model_name=model_name, model_version=model_version, row_wise=row_wise, labels=labels or {}
        )

    def decode(self, body: Body, *, json_length: bytes = b"") -> InferRequest:
        """Read a request. Binary numbers are views of `body`.

        Raises:
            BadRequest: It is no such request, not for this model, or holds more or less than it says.
        """
        json_bytes = _parse_length(json_length, len(body)) if json_length else len(body)
        if json_length and not json_bytes:
            return self._decode_raw(body)
        behind_bytes = len(body) - json_bytes
        text = bytes(body[:json_bytes]) if behind_bytes and json_bytes <= MAX_KNOWN_BYTES else b""
        known = self._known.get(text, size_bytes=behind_bytes)
        if known is not None:
            return known.read(body, json_bytes)
        head = parse_head(body if json_bytes == len(body) else memoryview(body)[:json_bytes])
        parameters = head.parameters or {}
        timeout_s = check_parameters(parameters)
        asked = self._answer.asked(
            head.outputs or (), is_binary=parameters.get("binary_data_output") is True, request_id=head.id or ""
        )
        self._check_names([tensor.name for tensor in head.inputs])
        tensors: dict[str, Array] = {}
        position = json_bytes
        for index, tensor in enumerate(head.inputs):
            reader = self._inputs[tensor.name]
            tensors[tensor.name], position = reader.read(tensor, body, position, where=f"$.inputs[{index}]")
        if position < len(body):
            raise BadRequest(f"unexpected additional input data: {len(body) - position} bytes after the last input")
        request = InferRequest(tensors, asked, timeout_s)
        if text:
            self._known.remember(text, request, asked, size_bytes=behind_bytes)
        return request

    def parsed_bytes(self, body: Body, *, json_length: bytes = b"") -> int:
        """The JSON, and everything where the model takes strings."""
        if self._has_strings or not _LENGTH.fullmatch(json_length):
            return len(body)
        return min(int(json_length), len(body))

    def weigh(self, body: Body, *, json_length: bytes = b"", most_rows: int) -> int:
        """The JSON, and what lies behind it where the model takes strings."""
        json_bytes = min(int(json_length), len(body)) if _LENGTH.fullmatch(json_length) else len(body)
        whole = memoryview(body)
        made_bytes = weigh_json(whole[:json_bytes], self._specs, most_rows=most_rows if self._row_wise else None)
        return made_bytes + (weigh_strings(whole[json_bytes:]) if self._has_strings else 0)

    def place(self, request: InferRequest, where: str) -> str:
        """Which entry of `inputs`: `$.inputs[0]`; what lies below may be flat, or binary."""
        name = max((name for name in self._inputs if where.startswith(name)), key=len, default="")
        return f"$.inputs[{list(request.tensors).index(name)}]" if name in request.tensors else "$.inputs"

    def encode(self, request: InferRequest, outputs: Sequence[Array]) -> Encoded:
        """Write the answer: JSON, followed by the binary outputs if they have any bytes.

        Raises:
            ModelError: An output has a type or a string that the protocol cannot say.
        """
        return self._answer.write(_asked(request), outputs)

    def written_bytes(self, request: InferRequest, outputs: Sequence[Array]) -> int:
        """Those of JSON outputs, strings and classes; binary numbers are copied at once."""
        return self._answer.written_bytes(_asked(request), outputs)

    def _check_names(self, given: list[str]) -> None:
        if len(given) == len(self._inputs) and set(given) == self._inputs.keys():
            return
        missing = [name for name in self._inputs if name not in given]
        unexpected = [name for name in given if name not in self._inputs]
        repeated = [name for name, times in Counter(given).items() if times > 1]
        said = [
            f"{word} {', '.join(map(repr, names[:_NAMES_TOLD]))}"
            for word, names in (("missing", missing), ("unexpected", unexpected), ("more than once", repeated))
            if names
        ]
        raise BadRequest(f"{' and '.join(said)}: the inputs are {', '.join(map(repr, self._inputs))}", where="$.inputs")

    def _decode_raw(self, body: Body) -> InferRequest:
        if len(self._inputs) != 1:
            raise BadRequest(
                f"a request without JSON is for a model that must only have 1 input, this one has {len(self._inputs)}"
            )
        ((name, reader),) = self._inputs.items()
        tensor = reader.read_raw(body, row_wise=self._row_wise)
        return InferRequest({name: tensor}, self._answer.asked((), is_binary=True))


def _parse_length(text: bytes, most: int) -> int:
    length = int(text) if _LENGTH.fullmatch(text) else -1
    if not 0 <= length <= most:
        raise BadRequest(
            f"Inference-Header-Content-Length must be a number from 0 to the {most} bytes of the body, "
            f"not {text[:40].decode('latin-1')!r}"
        )
    return length


def _asked(request: InferRequest) -> Asked:
    if not isinstance(request.form, Asked):
        raise TypeError(f"only what this codec decoded can be answered by it, not the form {request.form!r}")
    return request.form
