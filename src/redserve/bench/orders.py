"""What a sending process and its parent say to each other.

parent                                    worker
Load                                 ─>   connect
                                     <─   Ready, or Refused
Go(start_at_s, duration_s)           ─>   send
                                     <─   Progress, several times a second
Stop                                 ─>   send no more
                                     <─   Tally                        then Go again, or the pipe ends
"""

from array import array
from dataclasses import dataclass


@dataclass(frozen=True)
class Ready:
    """The connections stand."""


@dataclass(frozen=True)
class Refused:
    """They could not be opened."""

    why: str


@dataclass(frozen=True)
class Go:
    """Send, beginning at `start_at_s` of `time.monotonic`, which all processes of a machine share."""

    start_at_s: float
    duration_s: float


@dataclass(frozen=True)
class Stop:
    """Send nothing more; what is under way is waited for."""

    because: str


@dataclass(frozen=True)
class Progress:
    """What is new since the last one.

    Attributes:
        ok: Answers with 2xx.
        failed: Requests without.
        latencies_us: Of the first, in microseconds.
    """

    ok: int
    failed: int
    latencies_us: "array[int]"
