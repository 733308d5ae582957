"""SIGINT and SIGTERM as an exception, which waits while something must not be torn apart."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A signal asked for the end.

    Attributes:
        status: What the process should end with: 130 or 143.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


class StopSignals:
    """While entered, in the main thread: the first signal raises `Stopped`, the second ends the process at once."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._is_held = False

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._asked) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A signal that comes inside is raised at the end of it."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self._number is not None:
            raise Stopped(self._number)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self._number is not None:
            os._exit(128 + number)
        self._number = number
        if not self._is_held:
            raise Stopped(number)
