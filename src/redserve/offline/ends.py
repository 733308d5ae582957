"""Both ends of a job, by what it calls them: rows of JSON Lines or an array, answers in a file or a pipe."""

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from redserve.engine.tensors import check_tensors
from redserve.models.prepare import Prepared
from redserve.offline.failures import JobFailed
from redserve.offline.output import Output, PartialFile, Pipe
from redserve.offline.sources import JsonLines, NpyRows, Source
from redserve.offline.writers import LineWriter, NpyWriter, OnError, Writer
from redserve.protocol import PredictJson

STANDARD = "-"
"""The name of standard input, and of standard output."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done.

    Attributes:
        source: The rows: a `.npy` file, else JSON Lines; `-` is standard input.
        target: The answers: a `.npy` file, else JSON Lines; `-` is standard output.
        on_error: What a row without an answer does.
        output: Which output of the model an array is of; `None` is the only one.
        restart: Begin anew, whatever was done.
        checkpoint_s: Seconds of work that a crash may cost; 0 keeps each block.
        terms: What else the answers depend on, such as the model's file; a job goes on under equal terms only.
        reads: Files that are read besides the source.
    """

    source: str
    target: str
    on_error: OnError = "stop"
    output: str | None = None
    restart: bool = False
    checkpoint_s: float = 5.0
    terms: dict[str, Any]
    reads: Sequence[Path] = ()

    def __post_init__(self) -> None:
        if not self.checkpoint_s >= 0:
            raise ValueError(f"checkpoint_s must be >= 0, got {self.checkpoint_s}")


def open_output(job: Job, stack: ExitStack) -> Output:
    """Where the answers go; `stack` closes what is opened for it.

    Raises:
        JobFailed: It is complete already, another process writes it, or it is what is read.
        OSError: It cannot be opened.
    """
    if job.target == STANDARD:
        return Pipe(sys.stdout.fileno())
    path = Path(job.target)
    for read in (Path(job.source), *job.reads):
        if path.is_file() and read.is_file() and path.samefile(read):
            raise JobFailed(f"{path} is read: name another file for the answers")
    if path.exists() and not path.is_file():
        descriptor = os.open(path, os.O_WRONLY)
        stack.callback(os.close, descriptor)
        return Pipe(descriptor)
    return PartialFile(path, is_resumable=_is_file(job.source), restart=job.restart)


def open_source(job: Job, prepared: Prepared, *, finite: bool, stack: ExitStack) -> tuple[Source, Writer]:
    """Where the rows come from, and what their answers are in the output; `stack` closes what is opened for it.

    Raises:
        JobFailed: Model, rows and answers do not go together.
        OSError: The rows cannot be opened.
    """
    engine = prepared.engines[0]
    if not engine.batchability.is_row_wise:
        raise JobFailed(f"the model has no rows to predict one by one: {engine.batchability.reason}")
    check = partial(check_tensors, engine.inputs, row_wise=True, finite=finite)
    codec = PredictJson(engine.inputs, engine.outputs)
    is_array = job.source.endswith(".npy")
    if job.target.endswith(".npy"):
        if not is_array:
            raise JobFailed("an array is written from an array: JSON Lines do not say beforehand how many they are")
    elif job.output is not None:
        raise JobFailed("one output is chosen for arrays only: JSON Lines hold all of them")
    if is_array:
        if len(engine.inputs) != 1 or engine.inputs[0].dtype.kind not in "biuf":
            raise JobFailed(f"an array is one input of numbers, the model takes {', '.join(map(str, engine.inputs))}")
        array = NpyRows(Path(job.source), engine.inputs[0], check, max_batch_size=prepared.max_batch_size)
        if job.target.endswith(".npy"):
            return array, NpyWriter(engine.outputs, name=job.output, rows=array.rows, on_error=job.on_error)
        return array, LineWriter(codec, on_error=job.on_error)
    file = sys.stdin.buffer if job.source == STANDARD else stack.enter_context(open(job.source, "rb"))  # noqa: SIM115
    size_bytes = Path(job.source).stat().st_size if _is_file(job.source) else None
    lines = JsonLines(file, codec, check, max_batch_size=prepared.max_batch_size, size_bytes=size_bytes)
    return lines, LineWriter(codec, on_error=job.on_error)


def _is_file(name: str) -> bool:
    return name != STANDARD and Path(name).is_file()
