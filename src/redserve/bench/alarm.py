"""A timer that rings within some 0.1 ms of the time asked for, where event loops round to 1 ms.

On Linux it is a timerfd, which the loop watches like a socket; elsewhere the loop's own timer. An open loop at
8,000/s has 0.125 ms between two requests: with millisecond timers they would leave in packs of eight.
"""

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import suppress

_CLOCK_MONOTONIC, _ABSOLUTE = 1, 1
_SOONEST_NS = 1  # zero would disarm


class Alarm:
    """Calls `ring` once, at the time last set, on the clock of `time.monotonic`."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._later: asyncio.TimerHandle | None = None
        self._timer = _TimerFd() if sys.platform == "linux" else None
        if self._timer is not None:
            self._loop.add_reader(self._timer.fd, self._rang)

    def set(self, at_s: float) -> None:
        """Ring at `at_s`, and not at the time set before; at once if that has passed."""
        if self._timer is not None:
            self._timer.set(max(round(at_s * 1e9), _SOONEST_NS))
            return
        if self._later is not None:
            self._later.cancel()
        self._later = self._loop.call_later(max(at_s - self._loop.time(), 0.0), self._ring)

    def close(self) -> None:
        """Ring no more."""
        if self._later is not None:
            self._later.cancel()
        if self._timer is not None:
            self._loop.remove_reader(self._timer.fd)
            os.close(self._timer.fd)

    def _rang(self) -> None:
        assert self._timer is not None
        with suppress(BlockingIOError):  # it was set anew in between
            os.read(self._timer.fd, 8)
            self._ring()


class _Spec(ctypes.Structure):
    """`struct itimerspec`; the interval stays 0: once."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class _TimerFd:
    """Python has `os.timerfd_create` from 3.13 on only."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._spec = _Spec()
        self._spec_address = ctypes.byref(self._spec)

    def set(self, at_ns: int) -> None:
        self._spec.value_s, self._spec.value_ns = divmod(at_ns, 1_000_000_000)
        if self._libc.timerfd_settime(self.fd, _ABSOLUTE, self._spec_address, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")
