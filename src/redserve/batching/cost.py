"""How long a batch takes, by its rows: learnt from each clean run, pure logic.

shape   a mean for each size (above 16 rows for each eighth of an octave), slow to forget; never falling with the
        rows, interpolated between sizes, flat beyond them: a size that was not seen yet is predicted too short
        rather than too long, so it is tried, and known from then on
drift   what recent batches took of what was expected, whatever their sizes; once it is out of what chance explains,
        all sizes are corrected by it: a device that is half as fast from now on is known after a dozen batches
noise   relative variance, the same for all sizes
"""

import math
from collections.abc import Mapping

_SHAPE_FORGETS = 1 - 0.5 ** (1 / 200)  # half of a size after 200 batches of it
_DRIFT_FORGETS = 0.1
_NOISE_FORGETS = 0.02
_SURPRISE = 4.5  # standard errors that chance explains; with fewer, rare sizes would follow the noise of frequent ones
_LEAST_DRIFT = 0.1
_FIRST_NOISE = 0.1**2
_SEED = 4  # batches that a time measured beforehand counts for, and that a size needs to say something of the drift
_ENOUGH = 2  # batches to predict from, where nothing was measured beforehand
_SHORTEST_S = 1e-9
_OUTLIER = 3.0  # times the prediction; what takes longer counts for that


class CostModel:
    """Predicts service times.

    Args:
        service_times_s: Seconds by rows, measured beforehand; may be empty.

    Attributes:
        noise: Relative variance of a service time.

    Raises:
        ValueError: Not even one row, or a time that is not positive.
    """

    def __init__(self, service_times_s: Mapping[int, float]) -> None:
        self.noise = _FIRST_NOISE
        self._sizes: dict[int, _Size] = {}
        self._drift = 1.0
        self._knots: list[tuple[float, float]] | None = None  # rows, seconds; `None`: to be drawn anew
        self._asked_s: dict[int, float] = {}  # of what was asked for since
        self._observed = _ENOUGH if service_times_s else -1  # the first call ever is often the longest: not counted
        for rows, seconds in service_times_s.items():
            if rows < 1 or not 0 < seconds < math.inf:
                raise ValueError(f"a batch of {rows} rows cannot take {seconds} s")
            for _ in range(_SEED):
                self._size(rows).learn(rows, seconds)

    @property
    def knows_something(self) -> bool:
        """Whether there is anything to predict from."""
        return self._observed > 0

    @property
    def knows_enough(self) -> bool:
        """Whether a request may be refused on a prediction."""
        return self._observed >= _ENOUGH

    def service_s(self, rows: int) -> float:
        """The mean for a batch of `rows`; 0 while nothing is known."""
        service_s = self._asked_s.get(rows)
        if service_s is None:
            if self._knots is None:
                self._knots = _connected(self._sizes)
            service_s = self._asked_s[rows] = _interpolated(self._knots, rows)
        return service_s

    def observe(self, *, rows: int, seconds: float) -> None:
        """Learn that a batch of `rows` took `seconds`."""
        self._observed += 1
        if not self._observed:
            return
        size = self._size(rows)
        seconds = max(seconds, _SHORTEST_S)
        if size.batches >= _SEED:
            seconds = min(seconds, _OUTLIER * size.seconds)
            self._compare(seconds / size.seconds)
        size.learn(rows, seconds)
        if self._knots is not None:
            self._knots = None
            self._asked_s.clear()

    def _compare(self, ratio: float) -> None:
        """A batch took `ratio` of what was expected."""
        self.noise += max(1 / self._observed, _NOISE_FORGETS) * ((ratio - self._drift) ** 2 - self.noise)
        self._drift += _DRIFT_FORGETS * (ratio - self._drift)
        chance = _SURPRISE * math.sqrt(self.noise * _DRIFT_FORGETS / (2 - _DRIFT_FORGETS))
        if abs(self._drift - 1) > max(chance, _LEAST_DRIFT):
            for size in self._sizes.values():
                size.seconds *= self._drift
            self._drift = 1.0

    def _size(self, rows: int) -> "_Size":
        """Each for itself up to 16 rows; then 8 to each doubling: 17..18, ..., 31..32, 33..36, ..."""
        shift = max((rows - 1).bit_length() - 4, 0)
        index = 8 * shift + ((rows - 1) >> shift)
        size = self._sizes.get(index)
        if size is None:
            size = self._sizes[index] = _Size()
        return size


class _Size:
    """Batches of one size, or of sizes close to each other: means."""

    __slots__ = ("batches", "rows", "seconds")

    def __init__(self) -> None:
        self.batches = 0
        self.rows = 0.0
        self.seconds = 0.0

    def learn(self, rows: int, seconds: float) -> None:
        self.batches += 1
        share = max(1 / self.batches, _SHAPE_FORGETS)
        self.rows += share * (rows - self.rows)
        self.seconds += share * (seconds - self.seconds)


def _connected(sizes: Mapping[int, _Size]) -> list[tuple[float, float]]:
    """The means in order of size; where a larger one seems to be quicker they are pooled (isotonic regression)."""
    pools: list[tuple[float, float, float]] = []  # weight, rows, seconds
    for _, size in sorted(sizes.items()):
        weight, rows, seconds = float(size.batches), size.rows, size.seconds
        while pools and pools[-1][2] >= seconds:
            other, other_rows, other_s = pools.pop()
            share = other / (weight + other)
            rows += share * (other_rows - rows)
            seconds += share * (other_s - seconds)
            weight += other
        pools.append((weight, rows, seconds))
    return [(rows, seconds) for _, rows, seconds in pools]


def _interpolated(knots: list[tuple[float, float]], rows: int) -> float:
    """On the straight line between the knots around `rows`; flat outside of them."""
    below_rows, below_s = 0.0, knots[0][1] if knots else 0.0
    for knot_rows, knot_s in knots:
        if rows <= knot_rows:
            return below_s + (knot_s - below_s) * (rows - below_rows) / (knot_rows - below_rows)
        below_rows, below_s = knot_rows, knot_s
    return below_s
