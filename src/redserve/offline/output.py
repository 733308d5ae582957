"""Where the output goes: a file that appears when it is complete, or a pipe.

    OUT.partial          what is written so far; locked by the process that writes
    OUT.partial.state    the mark: how much of that holds, for certain
    OUT                  at the end; the other two are gone

A mark is written after what it speaks of is on the disk, so a crash at any moment leaves a mark that is true: whatever
lies behind it in OUT.partial is cut off before the job goes on.
"""

import fcntl
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import orjson

from redserve.offline.block import InputMark
from redserve.offline.failures import JobFailed


@dataclass(frozen=True, slots=True)
class Mark:
    """What is done.

    Attributes:
        input: How far the input is done.
        failed: Rows of those that have no answer.
        output_bytes: What the output has for them.
        terms: What the answers depend on: model, batch size and the like.
    """

    input: InputMark
    failed: int
    output_bytes: int
    terms: dict[str, Any] = field(default_factory=dict)


class Output(Protocol):
    """What a job appends to."""

    @property
    def mark(self) -> Mark | None:
        """Where a job like this goes on; `None` at the beginning."""
        ...

    def append(self, data: bytes) -> None:
        """Write all of `data`."""
        ...

    def keep(self, mark: Mark) -> None:
        """From now on, a job that is broken off goes on behind `mark`; its `output_bytes` are filled in here."""
        ...

    def finish(self) -> None:
        """All is written."""
        ...

    def close(self) -> None:
        """Let go, finished or not."""
        ...


class Pipe:
    """An output that is read while it is written: standard output, a FIFO, a device.

    Args:
        descriptor: That is written to, and left open.
    """

    mark = None

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def append(self, data: bytes) -> None:
        """Write all of `data`; waits for the reader."""
        _write(self._descriptor, data)

    def keep(self, mark: Mark) -> None:
        """Nothing can be taken back from a pipe."""

    def finish(self) -> None:
        """Whoever opened it closes it."""

    def close(self) -> None:
        """Whoever opened it closes it."""


class PartialFile:
    """A file that has its name when it is complete.

    Args:
        path: That name.
        is_resumable: Whether a mark is kept.
        restart: Begin anew, whatever is there.

    Attributes:
        partial: Where it is until then.
        mark: Where a job like this goes on; `None` at the beginning.

    Raises:
        JobFailed: It is complete already, another process writes it, or its mark is not true.
        OSError: It cannot be made.
    """

    def __init__(self, path: Path, *, is_resumable: bool, restart: bool) -> None:
        self._is_resumable = is_resumable
        self._is_mine = False
        self.partial = path.with_name(f"{path.name}.partial")
        self.mark: Mark | None = None
        self._path = path
        self._state = path.with_name(f"{path.name}.partial.state")
        self._fresh_state = path.with_name(f"{path.name}.partial.state.new")
        if path.exists() and not restart:
            raise JobFailed(f"{path} is there already; --restart writes it anew")
        self._descriptor = os.open(self.partial, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._bytes = self._begin(restart=restart)
            self._is_mine = True
        except BaseException:
            self.close()
            raise

    def append(self, data: bytes) -> None:
        """Write all of `data`."""
        _write(self._descriptor, data)
        self._bytes += len(data)

    def keep(self, mark: Mark) -> None:
        """Have all that was appended on the disk, and then the mark."""
        if not self._is_resumable:
            return
        os.fsync(self._descriptor)
        mark = replace(mark, output_bytes=self._bytes)
        with self._fresh_state.open("wb") as file:
            file.write(orjson.dumps(asdict(mark)))
            file.flush()
            os.fsync(file.fileno())
        self._fresh_state.replace(self._state)
        _sync_folder(self._path.parent)
        self.mark = mark

    def finish(self) -> None:
        """Give it its name."""
        os.fsync(self._descriptor)
        self.partial.replace(self._path)
        self._is_mine = False
        self._state.unlink(missing_ok=True)
        _sync_folder(self._path.parent)

    def close(self) -> None:
        """Let go of it, and of the lock; what no job could go on from is removed."""
        if self._is_mine and self.mark is None:
            self.partial.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _begin(self, *, restart: bool) -> int:
        """Lock it, cut off what the mark does not speak of; returns the bytes that are left."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_current = os.path.samestat(os.fstat(self._descriptor), self.partial.stat())
        except (BlockingIOError, FileNotFoundError):
            is_current = False
        if not is_current:  # or it has just been finished, and is the output of another process now
            raise JobFailed(f"another process writes {self.partial}")
        if not restart and self._is_resumable:
            self.mark = _read_mark(self._state)
        done = 0 if self.mark is None else self.mark.output_bytes
        if os.fstat(self._descriptor).st_size < done:
            raise JobFailed(f"{self.partial} is shorter than {self._state} says; --restart begins anew")
        self._fresh_state.unlink(missing_ok=True)
        if self.mark is None:
            self._state.unlink(missing_ok=True)
        os.ftruncate(self._descriptor, done)
        return done


def _read_mark(path: Path) -> Mark | None:
    try:
        state = orjson.loads(path.read_bytes())
        return Mark(**{**state, "input": InputMark(**state["input"])})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise JobFailed(f"{path} cannot be read ({error}); --restart begins anew") from error


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync_folder(folder: Path) -> None:
    """Have a new name on the disk; some file systems cannot be asked to."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
