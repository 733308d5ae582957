"""Heads of Open Inference requests that have been read before: what they say need not be found out again.

    JSON whose inputs are all numbers behind it ─ remember ─> KnownHead
    the same JSON, as many bytes behind it ─ get, read ─> the same request, with views of these bytes

A client sends the same few lines with each image; with an `id` in them they differ each time, and are not kept.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from redserve.engine.tensors import Array, TensorSpec
from redserve.protocol.binary_tensors import view_numbers
from redserve.protocol.messages import Asked, Body, InferRequest

MAX_KNOWN_BYTES = 1_024
"""A longer head is read each time."""

_MOST_HEADS = 64


@dataclass(frozen=True, slots=True)
class KnownHead:
    """What a head says, which is right for its model.

    Attributes:
        inputs: What the model takes, and the shape that it comes in; in the order of the bytes.
        size_bytes: Of all of them.
        asked: How the request wants to be answered.
        timeout_s: How long that may take.
    """

    inputs: tuple[tuple[TensorSpec, Sequence[int]], ...]
    size_bytes: int
    asked: Asked
    timeout_s: float | None

    def read(self, body: Body, start: int) -> InferRequest:
        """The request whose numbers begin at `start`.

        Raises:
            BadRequest: A boolean is neither 0 nor 1.
        """
        tensors: dict[str, Array] = {}
        for index, (spec, shape) in enumerate(self.inputs):
            tensor = view_numbers(spec, shape, body, start, where=f"$.inputs[{index}]")
            tensors[spec.name] = tensor
            start += tensor.nbytes
        return InferRequest(tensors, self.asked, self.timeout_s)


class KnownHeads:
    """Those of one model.

    Args:
        inputs: What it takes.
    """

    def __init__(self, inputs: Iterable[TensorSpec]) -> None:
        self._specs = {spec.name: spec for spec in inputs}
        self._by_text: dict[bytes, KnownHead] = {}

    def get(self, text: bytes, *, size_bytes: int) -> KnownHead | None:
        """What `text` says, if that is known, and that so many bytes come behind it."""
        head = self._by_text.get(text)
        return head if head is not None and head.size_bytes == size_bytes else None

    def remember(self, text: bytes, request: InferRequest, asked: Asked, *, size_bytes: int) -> None:
        """Keep what was just read, if all is in the `size_bytes` behind it; all are forgotten when they are many."""
        tensors = request.tensors
        if asked.id or any(tensor.dtype.kind == "O" for tensor in tensors.values()):
            return
        if sum(tensor.nbytes for tensor in tensors.values()) != size_bytes:
            return
        if len(self._by_text) >= _MOST_HEADS:
            self._by_text.clear()
        inputs = tuple((self._specs[name], tensor.shape) for name, tensor in tensors.items())
        self._by_text[text] = KnownHead(inputs, size_bytes, asked, request.timeout_s)
