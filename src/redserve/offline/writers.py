"""What a block's answers are in the output: JSON Lines, or the next rows of one `.npy` array."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import orjson

from redserve.engine.tensors import Array, TensorSpec
from redserve.errors import BadRequest, ModelError, RedserveError
from redserve.offline.block import Answers
from redserve.offline.failures import JobFailed
from redserve.protocol import PredictJson

OnError = Literal["stop", "skip", "null"]
"""What a row without an answer does: end the job, leave its error in its place, or null (NaN in an array)."""


class Writer(Protocol):
    """Turns answers into bytes that follow each other."""

    def go_on(self, path: Path) -> None:
        """The blocks to come follow what is in `path`."""
        ...

    def encode(self, rows: int, answers: Answers) -> bytes:
        """What a block of `rows` appends; a row that cannot be written is added to the failures."""
        ...


class LineWriter:
    """A line a row, as it would stand in `predictions` of `/predict`."""

    def __init__(self, codec: PredictJson, *, on_error: OnError) -> None:
        self._codec = codec
        self._on_error = on_error

    def go_on(self, path: Path) -> None:
        """Nothing to know: lines stand for themselves."""

    def encode(self, rows: int, answers: Answers) -> bytes:
        """One line for each row, in order."""
        lines = [b""] * rows
        for places, outputs in answers.parts:
            try:
                written = self._codec.encode_lines(outputs)
            except ModelError:
                written = [self._encode_row(outputs, index, place, answers) for index, place in enumerate(places)]
            for place, line in zip(places, written, strict=True):
                lines[place] = line
        for place, error in answers.failures.items():
            lines[place] = _error_line(error) if self._on_error == "skip" else b"null\n"
        return b"".join(lines)

    def _encode_row(self, outputs: Sequence[Array], index: int, place: int, answers: Answers) -> bytes:
        try:
            return self._codec.encode_lines([output[index : index + 1] for output in outputs])[0]
        except ModelError as error:
            answers.failures[place] = error
            return b""


class NpyWriter:
    """The rows of one array, which has as many as the input.

    Args:
        outputs: The model's.
        name: Which of them; `None` is the only one.
        rows: Of the input.
        on_error: What stands for a row without an answer.

    Raises:
        JobFailed: One array cannot say the answers.
    """

    def __init__(self, outputs: Sequence[TensorSpec], *, name: str | None, rows: int, on_error: OnError) -> None:
        names = [spec.name for spec in outputs]
        if name is None and len(outputs) > 1:
            raise JobFailed(f"the model has several outputs ({', '.join(names)}): choose one, or write .jsonl")
        if name is not None and name not in names:
            raise JobFailed(f"the model has no output {name!r}; it has {', '.join(names)}")
        self._index = 0 if name is None else names.index(name)
        self._spec = outputs[self._index]
        if self._spec.dtype.kind not in "biuf":
            raise JobFailed(f"output {self._spec.name!r} is text, which an array cannot hold: write .jsonl")
        if on_error == "skip" or (on_error == "null" and self._spec.dtype.kind != "f"):
            raise JobFailed(
                f"an array of {self._spec.dtype} has no place for errors: write .jsonl, or stop at the first"
            )
        self._rows = rows
        self._shape: tuple[int, ...] | None = None

    def go_on(self, path: Path) -> None:
        """Read the header of what is there."""
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, _ = np.lib.format.read_array_header_1_0(file)
        self._shape = shape[1:]

    def encode(self, rows: int, answers: Answers) -> bytes:
        """The data of these rows; before the first, the header."""
        header = b""
        if self._shape is None:
            self._shape = self._shape_of(answers)
            header = self._header(self._shape)
        array = np.empty((rows, *self._shape), self._spec.dtype)
        for places, outputs in answers.parts:
            output = outputs[self._index]
            if output.shape[1:] != self._shape:
                raise JobFailed(
                    f"output {self._spec.name!r} has rows of {list(self._shape)} and of {list(output.shape[1:])}, "
                    "which one array cannot hold: write .jsonl"
                )
            array[list(places)] = output
        if answers.failures:
            array[list(answers.failures)] = np.nan if self._spec.dtype.kind == "f" else 0  # which is never kept
        return header + array.astype(self._spec.dtype.newbyteorder("<"), copy=False).tobytes()

    def _shape_of(self, answers: Answers) -> tuple[int, ...]:
        if answers.parts:
            shape: tuple[int, ...] = answers.parts[0][1][self._index].shape
            return shape[1:]
        sizes = tuple(size for size in self._spec.shape[1:] if isinstance(size, int))
        if len(sizes) != len(self._spec.shape) - 1:
            raise JobFailed("none of the first rows has an answer, so that the shape of the array is not known")
        return sizes

    def _header(self, shape: tuple[int, ...]) -> bytes:
        written = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(self._spec.dtype.newbyteorder("<"))
        np.lib.format.write_array_header_1_0(
            written, {"descr": descr, "fortran_order": False, "shape": (self._rows, *shape)}
        )
        return written.getvalue()


def error_fields(error: RedserveError) -> dict[str, str]:
    """What `/predict` says of an error, with the place in the row where that is known."""
    fields = {"reason": error.reason, "message": str(error)[:1000]}
    if isinstance(error, BadRequest) and error.where is not None:
        fields["where"] = error.where
    return fields


def _error_line(error: RedserveError) -> bytes:
    return orjson.dumps({"error": error_fields(error)}, option=orjson.OPT_APPEND_NEWLINE)
