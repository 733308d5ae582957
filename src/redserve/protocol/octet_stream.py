"""`application/octet-stream`: the rows of a model with one input, back to back, and nothing else.

    row, row, ...    little endian, row major; a row has the model's sizes behind axis 0, so the length says how many

The type is the model's: float32, or uint8 where it takes that. The answer is the JSON of `/predict`: its sizes may
vary, and nothing in bare bytes would say so.
"""

import math
from collections.abc import Sequence

from redserve.engine.tensors import Array, TensorSpec
from redserve.errors import BadRequest, UnsupportedMediaType
from redserve.protocol.binary_tensors import view_numbers
from redserve.protocol.messages import Body, Encoded, InferRequest
from redserve.protocol.npy import only_numbers
from redserve.protocol.predict_json import PredictJson

CONTENT_TYPE = b"application/octet-stream"


class OctetStream:
    """Codec of `application/octet-stream` for one row-wise model.

    Args:
        inputs: What the model takes; axis 0 is the row.
        json: Writes the answers.

    Raises:
        UnsupportedMediaType: The model has several inputs, takes text, or the size of its row is not fixed.
    """

    def __init__(self, inputs: Sequence[TensorSpec], *, row_wise: bool, json: PredictJson) -> None:
        spec = self._spec = only_numbers(inputs)
        self._row_shape = [size for size in spec.shape[1:] if isinstance(size, int)]
        self._row_bytes = math.prod(self._row_shape) * spec.dtype.itemsize
        if not row_wise or len(self._row_shape) != len(spec.shape) - 1 or not self._row_bytes:
            raise UnsupportedMediaType(f"bare bytes do not say the shape of input {spec}: send .npy or JSON")
        self._json = json

    def decode(self, body: Body, *, json_length: bytes = b"") -> InferRequest:
        """Read rows, as a view of `body`.

        Raises:
            BadRequest: They are not whole rows, or none.
        """
        rows, rest = divmod(len(body), self._row_bytes)
        if rest or not rows:
            raise BadRequest(
                f"a row of input {self._spec} takes {self._row_bytes} bytes, the body has {len(body)}: "
                f"{rows} rows and {rest} bytes"
            )
        return InferRequest({self._spec.name: view_numbers(self._spec, [rows, *self._row_shape], body, 0)}, "values")

    def parsed_bytes(self, body: Body, *, json_length: bytes = b"") -> int:
        """None."""
        return 0

    def weigh(self, body: Body, *, json_length: bytes = b"", most_rows: int) -> int:
        """Nothing: the numbers are a view of the body."""
        return 0

    def place(self, request: InferRequest, where: str) -> str:
        """As it is: the input's name and the indices in its array."""
        return where

    def encode(self, request: InferRequest, outputs: Sequence[Array]) -> Encoded:
        """Write predictions as JSON.

        Raises:
            ModelError: An output is NaN or infinite.
        """
        return self._json.encode(request, outputs)

    def written_bytes(self, request: InferRequest, outputs: Sequence[Array]) -> int:
        """All of them."""
        return self._json.written_bytes(request, outputs)
