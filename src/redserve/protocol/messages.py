"""What every wire format turns its bytes into, and the contract of a wire format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from redserve.engine.tensors import Array


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One request, decoded.

    Attributes:
        tensors: Named inputs; those of a row-wise model are `(rows, ...)`.
        form: How it was asked, which decides how it is answered: rows that are values, rows that are objects of named
            inputs, or named columns.
    """

    tensors: Mapping[str, Array]
    form: Literal["values", "objects", "columns"]


class Codec(Protocol):
    """One wire format of one model."""

    media_type: str

    def decode(self, body: bytes) -> InferRequest:
        """Read a request body.

        Raises:
            BadRequest: It is malformed, or does not have the model's form.
        """

    def place(self, request: InferRequest, where: str) -> str:
        """Where in the body of `request` the place `where` of its tensors stands, as a JSON path or the like.

        Args:
            request: As it was decoded.
            where: An input's name, and indices behind it: `pixels[3][17]`.
        """

    def encode(self, request: InferRequest, outputs: Sequence[Array]) -> bytes:
        """Write the answer to `request`; `outputs` come in the model's order.

        Raises:
            ModelError: An output holds a value that the format cannot say.
        """
