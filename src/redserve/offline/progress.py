"""How far a job is, on standard error: a bar on a terminal, else a line every few seconds."""

import time
from collections.abc import Callable
from typing import Protocol, TextIO

LINE_EVERY_S = 5.0


class Reporter(Protocol):
    """Is told how far a job is."""

    def show(self, rows: int, share: float | None) -> None:
        """So many rows are done, which is this share of all, where that is known."""
        ...

    def close(self) -> None:
        """There is no more to tell."""
        ...


def reporter_for(stream: TextIO) -> Reporter:
    """A bar where `stream` is a terminal and `rich` is installed, else lines."""
    if stream.isatty():
        try:
            return Bar(stream)
        except ModuleNotFoundError:
            pass
    return Lines(stream)


class Lines:
    """A line every few seconds, for logs.

    Args:
        stream: Where to.
        clock: Seconds.
    """

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._told_s = clock()
        self._told_rows: int | None = None

    def show(self, rows: int, share: float | None) -> None:
        """Tell it, if the last time is long ago."""
        now_s = self._clock()
        if self._told_rows is None:  # what was done before is not this job's speed
            self._told_rows = rows
        passed_s = now_s - self._told_s
        if passed_s < LINE_EVERY_S:
            return
        known = "" if share is None else f", {share:.0%}"
        speed = (rows - self._told_rows) / passed_s
        print(f"redserve: {rows:,} rows{known}, {speed:,.0f} rows/s", file=self._stream, flush=True)
        self._told_s, self._told_rows = now_s, rows

    def close(self) -> None:
        """Nothing is open."""


class Bar:
    """A bar with the rate and the time that is left.

    Raises:
        ModuleNotFoundError: `rich` is not installed.
    """

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.fields[rows]:,} rows"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[speed]:,.0f} rows/s"),
            TimeRemainingColumn(),
            console=Console(file=stream),
            transient=True,
            redirect_stdout=False,  # which may be the answers
            redirect_stderr=False,
        )
        self._task = self._bar.add_task("", total=None, rows=0, speed=0.0)
        self._begun: tuple[float, int] | None = None
        self._bar.start()

    def show(self, rows: int, share: float | None) -> None:
        """Tell it; the bar draws itself anew ten times a second."""
        now_s = time.monotonic()
        begun_s, begun_rows = self._begun = self._begun or (now_s, rows)
        speed = (rows - begun_rows) / max(now_s - begun_s, 1e-9)
        total = None if share is None else 1.0
        self._bar.update(self._task, total=total, completed=share or 0.0, rows=rows, speed=speed)

    def close(self) -> None:
        """Take it away."""
        self._bar.stop()
