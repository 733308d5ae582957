"""What every wire format turns its bytes into, and the contract of a wire format."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, final

from redserve.engine.tensors import Array, Tensors

Body: TypeAlias = bytes | memoryview
"""Of a request: as it was joined, or where it was received."""


@final
@dataclass(frozen=True, slots=True)
class AskedOutput:
    """One output that an Open Inference request asks for.

    Attributes:
        index: Its place among the model's outputs.
        is_binary: Send it as bytes, not as JSON.
        classes: Send the largest so many values as text in its place; 0 sends the tensor.
    """

    index: int
    is_binary: bool
    classes: int = 0


@final
@dataclass(frozen=True, slots=True)
class Asked:
    """How an Open Inference request wants to be answered.

    Attributes:
        outputs: Those it asks for, in its order.
        id: Its name for itself, which the answer repeats; empty when it has none.
    """

    outputs: tuple[AskedOutput, ...]
    id: str = ""


Form: TypeAlias = Literal["values", "objects", "columns"] | Asked
"""Rows that are values, rows that are objects of named inputs, named columns, or outputs of one's choice."""


@final
class InferRequest:
    """One request, decoded.

    Attributes:
        tensors: Named inputs; those of a row-wise model are `(rows, ...)`. They may be views of the body.
        form: How it was asked, which decides how it is answered.
        timeout_s: How long the answer may take, where the body says so.
        is_checked: Whether reading it has made sure of all that `check_tensors` looks at; of one input, with rows.
    """

    __slots__ = ("form", "is_checked", "tensors", "timeout_s")

    def __init__(self, tensors: Tensors, form: Form, timeout_s: float | None = None, is_checked: bool = False) -> None:
        self.tensors = tensors
        self.form = form
        self.timeout_s = timeout_s
        self.is_checked = is_checked


@final
class Encoded:
    """An answer on its way.

    Attributes:
        body: The bytes.
        content_type: What they are.
        headers: That the format adds, names in lower case; without content type and length.
    """

    __slots__ = ("body", "content_type", "headers")

    def __init__(
        self,
        body: bytes,
        content_type: bytes = b"application/json",
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        self.body = body
        self.content_type = content_type
        self.headers = headers


class Codec(Protocol):
    """One wire format of one model."""

    def decode(self, body: Body, *, json_length: bytes = b"") -> InferRequest:
        """Read a request body.

        Args:
            body: All of it, decompressed.
            json_length: `Inference-Header-Content-Length` as it came, for the format that has it; empty when it did
                not come.

        Raises:
            BadRequest: It is malformed, or does not have the model's form.
        """
        ...

    def parsed_bytes(self, body: Body, *, json_length: bytes = b"") -> int:
        """How many bytes of `body` are read one by one: many of them are work for a thread. Never raises."""
        ...

    def weigh(self, body: Body, *, json_length: bytes = b"", most_rows: int) -> int:
        """About how many bytes of Python objects `decode` makes of a body of which much is read one by one.

        Args:
            body: As for `decode`.
            json_length: The same.
            most_rows: That a request may have where the model is row-wise.

        Raises:
            TooMuchToRead: It has more values than so many rows.
        """
        ...

    def place(self, request: InferRequest, where: str) -> str:
        """Where in the body of `request` the place `where` of its tensors stands, as a JSON path or the like.

        Args:
            request: As it was decoded.
            where: An input's name, and indices behind it: `pixels[3][17]`.
        """
        ...

    def encode(self, request: InferRequest, outputs: Sequence[Array]) -> Encoded:
        """Write the answer to `request`; `outputs` come in the model's order.

        Raises:
            ModelError: An output holds a value that the format cannot say.
        """
        ...

    def written_bytes(self, request: InferRequest, outputs: Sequence[Array]) -> int:
        """About how many bytes of `outputs` are written one by one: many of them are work for a thread."""
        ...
