"""When requests are to leave in an open loop: increasing seconds since the start, whatever becomes of the answers.

    constant    | | | | | | | |      every 1/rate
    poisson     |  ||   | |  | ||    independent clients: exponential gaps
    ramp        |   |  |  | | ||||   the rate grows (or falls) evenly
    burst       ||||    ||||         groups at once, at the same mean rate
    replay      |  |||  |    |       what a log recorded

Each is an endless or finite stream of planned times; it owns no clock. N processes share one stream: the i-th takes
every N-th time from i on, so that together they send exactly what one would.
"""

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


class Arrivals(Protocol):
    """A plan of departures."""

    @property
    def rate_per_s(self) -> float:
        """The mean over its whole length."""
        ...

    def times_s(self) -> Iterator[float]:
        """Planned times, in seconds since the start, in order; the same ones each time it is called."""
        ...


def _check_rate(rate_per_s: float) -> None:
    if not (rate_per_s > 0 and math.isfinite(rate_per_s)):
        raise ValueError(f"a rate must be a number > 0, got {rate_per_s}")


@dataclass(frozen=True)
class Constant:
    """One every `1 / rate_per_s` seconds, the first at once."""

    rate_per_s: float

    def __post_init__(self) -> None:
        _check_rate(self.rate_per_s)

    def times_s(self) -> Iterator[float]:
        """See `Arrivals`; counted from the start each time, so that no error adds up."""
        return (number / self.rate_per_s for number in itertools.count())


@dataclass(frozen=True)
class Poisson:
    """Independent clients; the same `seed` gives the same times."""

    rate_per_s: float
    seed: int = 0

    def __post_init__(self) -> None:
        _check_rate(self.rate_per_s)

    def times_s(self) -> Iterator[float]:
        """See `Arrivals`."""
        draw, now_s = random.Random(self.seed), 0.0
        while True:
            now_s += draw.expovariate(self.rate_per_s)
            yield now_s


@dataclass(frozen=True)
class Ramp:
    """From one rate to another, evenly over `seconds`; then it is over.

    After t seconds, `first * t + (last - first) * t**2 / (2 * seconds)` requests have left; the n-th leaves when that
    reaches n.
    """

    first_per_s: float
    last_per_s: float
    seconds: float

    def __post_init__(self) -> None:
        for rate in (self.first_per_s, self.last_per_s, self.seconds):
            _check_rate(rate)

    @property
    def rate_per_s(self) -> float:
        """See `Arrivals`."""
        return (self.first_per_s + self.last_per_s) / 2

    def times_s(self) -> Iterator[float]:
        """See `Arrivals`."""
        first, growth = self.first_per_s, (self.last_per_s - self.first_per_s) / self.seconds
        for number in range(round(self.rate_per_s * self.seconds)):
            # the smaller root, written so that nothing cancels and growth may be 0
            root = math.sqrt(max(first * first + 2 * growth * number, 0.0))
            yield 2 * number / (first + root)


@dataclass(frozen=True)
class Burst:
    """`size` at once, as often as `rate_per_s` on average asks for."""

    rate_per_s: float
    size: int

    def __post_init__(self) -> None:
        _check_rate(self.rate_per_s)
        if self.size < 1:
            raise ValueError(f"a burst has >= 1 requests, got {self.size}")

    def times_s(self) -> Iterator[float]:
        """See `Arrivals`."""
        return (number // self.size * self.size / self.rate_per_s for number in itertools.count())


@dataclass(frozen=True)
class Replay:
    """Recorded times, shifted so that the first is 0, and played `speed` times as fast."""

    recorded_s: Sequence[float]
    speed: float = 1.0

    def __post_init__(self) -> None:
        _check_rate(self.speed)
        if not self.recorded_s:
            raise ValueError("there is no time to replay")
        if not all(math.isfinite(time_s) for time_s in self.recorded_s):
            raise ValueError("a time to replay is not a finite number")

    @property
    def rate_per_s(self) -> float:
        """See `Arrivals`."""
        span_s = (max(self.recorded_s) - min(self.recorded_s)) / self.speed
        return len(self.recorded_s) / span_s if span_s else float(len(self.recorded_s))

    def times_s(self) -> Iterator[float]:
        """See `Arrivals`."""
        recorded = sorted(self.recorded_s)
        return ((time_s - recorded[0]) / self.speed for time_s in recorded)


@dataclass(frozen=True)
class Share:
    """Every `count`-th of `whole`, from the `index`-th on: what one of `count` processes sends."""

    whole: Arrivals
    index: int
    count: int

    @property
    def rate_per_s(self) -> float:
        """See `Arrivals`."""
        return self.whole.rate_per_s / self.count

    def times_s(self) -> Iterator[float]:
        """See `Arrivals`."""
        return itertools.islice(self.whole.times_s(), self.index, None, self.count)
