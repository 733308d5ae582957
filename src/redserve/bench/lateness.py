"""How late a process gets to things: sampled, for a closed loop, which has no plan to be late for.

An answer that has arrived waits as long as the alarm that has rung.
"""

from time import monotonic

from redserve.bench.alarm import Alarm

EVERY_S = 0.01


class Lateness:
    """Sets an alarm a hundred times a second, until it is closed.

    Attributes:
        samples_s: How late each one was seen.
    """

    def __init__(self) -> None:
        self.samples_s: list[float] = []
        self._alarm = Alarm(self._rang)
        self._due_s = 0.0
        self._set()

    def close(self) -> None:
        """Sample no more."""
        self._alarm.close()

    def _rang(self) -> None:
        self.samples_s.append(monotonic() - self._due_s)
        self._set()

    def _set(self) -> None:
        self._due_s = monotonic() + EVERY_S
        self._alarm.set(self._due_s)
