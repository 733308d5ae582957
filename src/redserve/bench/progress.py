"""How far a run is, on standard error: a live line on a terminal, else a line every few seconds."""

from collections import deque
from typing import Protocol, TextIO

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from redserve.bench import orders

LINE_EVERY_S = 5.0
WINDOW_S = 1.0


class Reporter(Protocol):
    """Is told how far a run is."""

    def begin(self, what: str, duration_s: float) -> None:
        """A run of so many seconds begins."""
        ...

    def show(self, now_s: float, new: orders.Progress) -> None:
        """What is new, so many seconds after the beginning."""
        ...

    def close(self) -> None:
        """There is no more to tell."""
        ...


def reporter_for(stream: TextIO) -> Reporter:
    """A live line where `stream` is a terminal, else lines."""
    return Bar(stream) if stream.isatty() else Lines(stream)


class Window:
    """What the last second was like: pure, told the time."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, orders.Progress]] = deque()
        self.failed = 0

    def add(self, now_s: float, new: orders.Progress) -> None:
        """Something new."""
        self._seen.append((now_s, new))
        self.failed += new.failed
        while self._seen[0][0] < now_s - WINDOW_S:
            self._seen.popleft()

    def describe(self, now_s: float) -> str:
        """Like `1,234/s   p50 1.2 ms   p99 3.4 ms   0 failed`."""
        latencies_us = np.concatenate([[], *(new.latencies_us for _, new in self._seen)])
        rate = sum(new.ok for _, new in self._seen) / max(min(now_s, WINDOW_S), 1e-3)
        p50, p99 = np.percentile(latencies_us, (50, 99)) / 1000 if len(latencies_us) else (0.0, 0.0)
        return f"{rate:>8,.0f}/s   p50 {p50:,.2f} ms   p99 {p99:,.2f} ms   {self.failed:,} failed"


class Lines:
    """A line every few seconds, for logs.

    Args:
        stream: Where to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._window = Window()
        self._what, self._duration_s, self._told_s = "", 0.0, 0.0

    def begin(self, what: str, duration_s: float) -> None:
        """See `Reporter`."""
        self._what, self._duration_s, self._told_s, self._window = what, duration_s, 0.0, Window()

    def show(self, now_s: float, new: orders.Progress) -> None:
        """See `Reporter`."""
        self._window.add(now_s, new)
        if now_s - self._told_s >= LINE_EVERY_S:
            self._told_s = now_s
            about = f"{self._what} {now_s:.0f} of {self._duration_s:.0f} s"
            print(f"redserve bench: {about} {self._window.describe(now_s)}", file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing is open."""


class Bar:
    """One live line: how far, how fast, how long still."""

    def __init__(self, stream: TextIO) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TimeRemainingColumn(),
            TextColumn("{task.fields[now]}"),
            console=Console(file=stream),
            refresh_per_second=4,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, now="")
        self._window = Window()
        self._bar.start()

    def begin(self, what: str, duration_s: float) -> None:
        """See `Reporter`."""
        self._window = Window()
        self._bar.reset(self._task, description=f"{what} {duration_s:g} s", total=duration_s, now="")

    def show(self, now_s: float, new: orders.Progress) -> None:
        """See `Reporter`; the line draws itself anew four times a second."""
        self._window.add(now_s, new)
        self._bar.update(self._task, completed=now_s, now=self._window.describe(now_s))

    def close(self) -> None:
        """Take it away."""
        self._bar.stop()
