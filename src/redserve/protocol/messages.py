"""What every wire format turns its bytes into, and the contract of a wire format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from redserve.engine.tensors import Array


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One request, decoded.

    Attributes:
        tensors: Named inputs; those of a row-wise model are `(rows, ...)`.
        by_column: Asked as named columns, and so answered as named columns.
    """

    tensors: Mapping[str, Array]
    by_column: bool


class Codec(Protocol):
    """One wire format of one model."""

    media_type: str

    def decode(self, body: bytes) -> InferRequest:
        """Read a request body.

        Raises:
            BadRequest: It is malformed, or does not have the model's form.
        """

    def encode(self, request: InferRequest, outputs: Sequence[Array]) -> bytes:
        """Write the answer to `request`; `outputs` come in the model's order.

        Raises:
            ModelError: An output holds a value that the format cannot say.
        """
