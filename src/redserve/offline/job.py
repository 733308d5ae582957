"""One job, from its first row, or from where it was broken off, to its last.

source ─ block ─> engine thread: run_block ─┐
  (the next blocks are read meanwhile)      └─> writer ─> output, a mark every few seconds
"""

import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial

from redserve.engine.base import Engine
from redserve.errors import BadRequest
from redserve.models.options import ModelOptions
from redserve.models.prepare import Prepared, prepare
from redserve.offline.block import Answers, Block, InputMark, run_block
from redserve.offline.ends import Job, open_output, open_source
from redserve.offline.failures import JobFailed
from redserve.offline.output import Mark, Output, PartialFile
from redserve.offline.progress import Reporter
from redserve.offline.sources import Source
from redserve.offline.stop import StopSignals
from redserve.offline.terms import check_terms
from redserve.offline.writers import Writer

READ_AHEAD_BLOCKS = 2


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What was done.

    Attributes:
        rows: All of the output.
        rows_before: Those that an earlier run of the job has done.
        failed: Those without an answer.
        seconds: Since the model was ready.
        engine_s: Of those, in the engine, and in waits for the interpreter when a run has ended.
    """

    rows: int
    rows_before: int
    failed: int
    seconds: float
    engine_s: float

    def __str__(self) -> str:
        """One line for people."""
        rows = self.rows - self.rows_before
        seconds = max(self.seconds, 1e-9)
        text = (
            f"{rows:,} rows in {seconds:,.1f} s, {rows / seconds:,.0f} rows/s; "
            f"the engine ran {self.engine_s / seconds:.0%} of the time"
        )
        if self.rows_before:
            text += f"; {self.rows_before:,} rows were done before"
        if self.failed:
            text += f"; {self.failed:,} rows have no answer"
        return text


def predict(
    job: Job,
    load_engine: Callable[[], Engine],
    options: ModelOptions,
    *,
    reporter: Reporter,
    stop: StopSignals,
    clock: Callable[[], float] = time.monotonic,
) -> Summary:
    """Do the job, or what is left of it; blocks.

    Raises:
        ModelLoadError: The model cannot be loaded.
        JobFailed: The job cannot be done as asked, or a row has no answer and `on_error` is `stop`.
        Stopped: A signal came. What is done is kept.
        OSError: The input cannot be read, or the output not be written.
    """
    with ExitStack() as stack:
        stack.callback(reporter.close)
        output = stack.enter_context(closing(open_output(job, stack)))
        before = output.mark
        if before is not None and options.max_batch_size is None:
            options = replace(options, max_batch_size=before.terms.get("max_batch_size"))
        prepared = prepare(load_engine, options)
        stack.callback(prepared.engines[0].close)
        source, writer = open_source(job, prepared, finite=options.finite is not False, stack=stack)
        terms = {
            **job.terms,
            "on_error": job.on_error,
            "output": job.output,
            "provider": prepared.engines[0].provider,
            "max_batch_size": prepared.max_batch_size,
        }
        if before is not None:
            check_terms(before.terms, terms)
            source.skip(before.input)
            if isinstance(output, PartialFile):
                writer.go_on(output.partial)
        begun = before or Mark(InputMark(0, 0, ""), failed=0, output_bytes=0)
        return _Run(job, prepared, source, writer, output, reporter, stop, clock, replace(begun, terms=terms)).all()


class _Run:
    """The job while it runs; `mark` is what is written."""

    def __init__(
        self,
        job: Job,
        prepared: Prepared,
        source: Source,
        writer: Writer,
        output: Output,
        reporter: Reporter,
        stop: StopSignals,
        clock: Callable[[], float],
        mark: Mark,
    ) -> None:
        self._job = job
        self._runner = prepared.runners[0]
        self._max_batch_size = prepared.max_batch_size
        self._source = source
        self._writer = writer
        self._output = output
        self._reporter = reporter
        self._stop = stop
        self._clock = clock
        self._begun = self._mark = mark
        self._engine_s = 0.0

    def all(self) -> Summary:
        """Until the last row."""
        begun_s = kept_s = self._clock()
        blocks = self._blocks()
        try:
            for block, answers in blocks:
                with self._stop.held():
                    self._write(block, answers)
                    if self._clock() - kept_s >= self._job.checkpoint_s:
                        self._output.keep(self._mark)
                        kept_s = self._clock()
        except BaseException as error:
            if self._mark is not self._begun and not isinstance(error, OSError):  # then the mark before holds
                self._output.keep(self._mark)
            if self._output.mark is not None:
                rows = self._output.mark.input.rows
                error.add_note(f"{rows:,} rows are done and kept: the same command goes on from there")
            raise
        finally:
            blocks.close()
        with self._stop.held():
            self._output.finish()
        return Summary(
            rows=self._mark.input.rows,
            rows_before=self._begun.input.rows,
            failed=self._mark.failed,
            seconds=self._clock() - begun_s,
            engine_s=self._engine_s,
        )

    def _blocks(self) -> Generator[tuple[Block, Answers]]:
        """Each block with its answers, in order, while those behind it are read and run."""
        engine = ThreadPoolExecutor(1, thread_name_prefix="redserve-engine")
        run = partial(run_block, self._runner, max_batch_size=self._max_batch_size)
        ahead: deque[tuple[Block, Future[Answers]]] = deque()
        try:
            for block in self._source:
                ahead.append((block, engine.submit(run, block)))
                if len(ahead) > READ_AHEAD_BLOCKS:
                    block, answers = ahead.popleft()
                    yield block, answers.result()
            while ahead:
                block, answers = ahead.popleft()
                yield block, answers.result()
        finally:
            engine.shutdown(wait=False, cancel_futures=True)
            self._runner.interrupt()

    def _write(self, block: Block, answers: Answers) -> None:
        encoded = self._writer.encode(block.rows, answers)
        self._engine_s += answers.engine_s
        failures = answers.failures
        if failures and self._job.on_error == "stop":
            place = min(failures)
            error = failures[place]
            where = error.where if isinstance(error, BadRequest) else None
            at = f" at {where}" if where and where != "$" else ""
            raise JobFailed(f"row {self._mark.input.rows + place + 1:,}: {error}{at}")
        self._output.append(encoded)
        self._mark = replace(self._mark, input=block.end, failed=self._mark.failed + len(failures))
        size = self._source.size_bytes
        self._reporter.show(block.end.rows, block.end.size_bytes / size if size else None)
