"""Where rows come from: JSON Lines, or one `.npy` array; as blocks that begin and end at the same rows each time.

file ─> hashed, as much as a block ─ sort_rows ─> Block, with the mark of how far the input was read
"""

import hashlib
import mmap
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from redserve.engine.tensors import Array, Tensors, TensorSpec, dtype_name
from redserve.errors import BadRequest
from redserve.offline.block import Block, InputMark, is_full, rows_of_full_block, sort_rows
from redserve.offline.failures import JobFailed
from redserve.protocol import PredictJson

Check = Callable[[Tensors], int]
"""Holds tensors against the model; raises `BadRequest`."""

MAX_LINE_BYTES = 64 * 2**20
PIECE_BYTES = 2**20
"""Lines are parsed so many at a time: as Python's numbers they take ten times the memory that they take as tensors."""
_INSTANCE = re.compile(r"^\$\.instances(\[[0*]\])?")
"""Where a line by itself stands in a body."""
_FORGET_BYTES = 64 * 2**20


class Source(Protocol):
    """Rows, in blocks.

    Attributes:
        size_bytes: Of all rows; `None` where nobody knows.
    """

    size_bytes: int | None

    def skip(self, mark: InputMark) -> None:
        """Go on from `mark`.

        Raises:
            JobFailed: What is before it is not what was there when the mark was made.
        """
        ...

    def __iter__(self) -> Iterator[Block]: ...


class JsonLines:
    """A row a line, each as it would stand in `instances` of `/predict`.

    Args:
        file: That is read from its beginning, to its end, once.
        codec: The model's.
        check: Holds rows against the model.
        max_batch_size: Rows run together.
        size_bytes: Of the file, where that is known.
    """

    def __init__(
        self, file: BinaryIO, codec: PredictJson, check: Check, *, max_batch_size: int, size_bytes: int | None
    ) -> None:
        self.size_bytes = size_bytes
        self._file = file
        self._codec = codec
        self._check = check
        self._max_batch_size = max_batch_size
        self._hash = hashlib.sha256()
        self._rows = self._read_bytes = 0

    def skip(self, mark: InputMark) -> None:
        """Read what is done once more, and compare."""
        while self._read_bytes < mark.size_bytes:
            read = self._file.read(min(PIECE_BYTES, mark.size_bytes - self._read_bytes))
            if not read:
                break
            self._count(read)
        if self._hash.hexdigest() != mark.sha256:
            raise _other_input(mark)
        self._rows = mark.rows

    def __iter__(self) -> Iterator[Block]:
        while True:
            before = self._rows
            groups, failures = sort_rows(self._pieces(), self._read)
            if self._rows == before:
                return
            end = InputMark(self._rows, self._read_bytes, self._hash.hexdigest())
            yield Block(self._rows - before, groups, failures, end)

    def _pieces(self) -> Iterator[list[bytes]]:
        """The lines of one block, some at a time."""
        rows, rows_bytes, piece, piece_bytes = 0, 0, [], 0
        while not (rows and is_full(rows, rows_bytes, max_batch_size=self._max_batch_size)):
            line = self._line()
            if not line:
                break
            piece.append(line)
            rows += 1
            rows_bytes += len(line)
            piece_bytes += len(line)
            if piece_bytes >= PIECE_BYTES:
                yield piece
                piece, piece_bytes = [], 0
        if piece:
            yield piece

    def _line(self) -> bytes:
        """The next one; of one that is too long, more than `MAX_LINE_BYTES`; nothing at the end."""
        line = self._file.readline(MAX_LINE_BYTES + 1)
        if not line:
            return b""
        self._count(line)
        rest = line
        while len(line) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = self._file.readline(PIECE_BYTES)
            if not rest:
                break
            self._count(rest)
        self._rows += 1
        return line

    def _count(self, read: bytes) -> None:
        self._hash.update(read)
        self._read_bytes += len(read)

    def _read(self, lines: list[bytes]) -> Tensors:
        if any(len(line) > MAX_LINE_BYTES for line in lines):
            raise BadRequest(f"the line is longer than {MAX_LINE_BYTES} bytes")
        where: str | None
        try:
            request = self._codec.decode_lines(lines)
            try:
                self._check(request.tensors)
            except BadRequest as error:
                where = error.where and self._codec.place(request, error.where)
                raise BadRequest(str(error), where=where) from error
        except BadRequest as error:
            where = error.where and _INSTANCE.sub("$", error.where)
            raise BadRequest(str(error), where=where) from error
        return request.tensors


class NpyRows:
    """The rows of an array, along its first axis; mapped, not read as a whole.

    Args:
        path: The `.npy` file.
        spec: The one input of the model.
        check: Holds rows against the model.
        max_batch_size: Rows run together.

    Attributes:
        rows: Of all.

    Raises:
        JobFailed: It is no `.npy` file of numbers of the model's type, or has no rows.
        OSError: It cannot be read.
    """

    def __init__(self, path: Path, spec: TensorSpec, check: Check, *, max_batch_size: int) -> None:
        try:
            array = np.lib.format.open_memmap(path, mode="r")  # which never reads a pickle
        except (ValueError, EOFError) as error:
            raise JobFailed(f"{path} is no array that can be mapped: {error}") from error
        if not array.ndim or not len(array):
            raise JobFailed(f"{path} has no rows: its shape is {list(array.shape)}")
        if array.dtype.newbyteorder("=") != spec.dtype:
            wanted, got = dtype_name(spec.dtype), dtype_name(array.dtype.newbyteorder("="))
            raise JobFailed(f"input {spec.name!r} must be {wanted}, and {path} holds {got}: convert it first")
        self.rows = len(array)
        self.size_bytes: int | None = array.nbytes
        self._path = path
        self._array = array
        self._spec = spec
        self._check = check
        self._row_bytes = array.nbytes // len(array)
        self._block_rows = rows_of_full_block(self._row_bytes, max_batch_size=max_batch_size)
        self._hash = hashlib.sha256(repr((array.shape, array.dtype.str)).encode())
        self._done = self._mapped_bytes = 0

    def skip(self, mark: InputMark) -> None:
        """Read what is done once more, and compare."""
        while self._done < mark.rows:
            self._take(min(self._block_rows, mark.rows - self._done))
        if self._hash.hexdigest() != mark.sha256:
            raise _other_input(mark)

    def __iter__(self) -> Iterator[Block]:
        while self._done < self.rows:
            rows = self._take(min(self._block_rows, self.rows - self._done))
            groups, failures = sort_rows([rows], self._read)
            end = InputMark(self._done, self._done * self._row_bytes, self._hash.hexdigest())
            yield Block(len(rows), groups, failures, end)

    def _take(self, count: int) -> Array:
        rows = np.array(self._array[self._done : self._done + count], dtype=self._spec.dtype, order="C")
        self._hash.update(rows.data if rows.size else b"")
        self._done += len(rows)
        self._mapped_bytes += rows.nbytes
        if self._mapped_bytes > _FORGET_BYTES and isinstance(self._array.base, mmap.mmap):
            self._array.base.madvise(mmap.MADV_DONTNEED)  # else what was read counts as this process's memory
            self._mapped_bytes = 0
        return rows

    def _read(self, rows: Array) -> Tensors:
        tensors = {self._spec.name: rows}
        self._check(tensors)
        return tensors


def _other_input(mark: InputMark) -> JobFailed:
    return JobFailed(f"the first {mark.rows:,} rows of the input are not those that were done")
