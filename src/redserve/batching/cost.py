"""How long a batch takes, by its rows: learnt from each clean run, pure logic.

shape   a mean for each size (above 16 rows for each eighth of a doubling), slow to forget; never falling with the
        rows, interpolated between sizes, flat beyond them: a size that was not seen yet is predicted too short
        rather than too long, so it is tried, and known from then on
drift   what recent batches took of what was expected, whatever their sizes; once it is out of what chance explains,
        all sizes are corrected by it: a device that is half as fast from now on is known after a dozen batches
noise   relative variance, the same for all sizes

A batch that takes far longer than expected counts for little, since the machine may have stalled. Several in a row mean
that what was expected is wrong, perhaps by orders of magnitude (a model that is warmed up on zeros may be quick with
those alone): it is forgotten, and they are what is known.
"""

import math
from collections.abc import Mapping, Sequence

from redserve.batching.sizes import padded

_SHAPE_FORGETS = 1 - 0.5 ** (1 / 200)  # half of a size after 200 batches of it
_DRIFT_FORGETS = 0.1
_NOISE_FORGETS = 0.02
_SURPRISE = 4.5  # standard errors that chance explains; with fewer, rare sizes would follow the noise of frequent ones
_LEAST_DRIFT = 0.25
_FIRST_NOISE = 0.1**2
_SEED = 4  # batches that a time measured beforehand counts for, and that a size needs to say something of the drift
_ENOUGH = 2  # batches to predict from, where nothing was measured beforehand
_SHORTEST_S = 1e-9
_FRESH = 2000  # batches after which a size that has not run is unknown again, so that it is tried
_OUTLIER = 3.0  # times what is expected; more counts for that
_BELIEVED = 5  # outliers in a row that are the truth: a stall of the machine hits as many batches as are running
_MOVED = 0.01  # of a size's mean: the curve is drawn anew, which costs more than a small model runs
_DRAWN_ANEW = 256  # batches after which it is in any case


class CostModel:
    """Predicts service times.

    Args:
        service_times_s: Seconds by rows, measured beforehand; may be empty.
        sizes: What batches are padded to, if they are; see `BatchPolicy.batch_sizes`.

    Attributes:
        noise: Relative variance of a service time.

    Raises:
        ValueError: Not even one row, or a time that is not positive.
    """

    def __init__(self, service_times_s: Mapping[int, float], sizes: Sequence[int] = ()) -> None:
        self.noise = _FIRST_NOISE
        self._padded_to = sizes
        self._sizes: dict[int, _Size] = {}
        self._drift, self._drift_of = 1.0, 0  # mean ratio, of so many batches
        self._outliers: list[tuple[int, float]] = []  # rows, seconds; without one in between that is none
        self._usual_noise = _FIRST_NOISE  # before them
        self._knots: list[tuple[int, float]] | None = None  # rows, seconds; `None`: to be drawn anew
        self._asked_s: dict[int, float] = {}  # of what was asked for since
        self._observed = _ENOUGH if service_times_s else -1  # the first call ever is often the longest: not counted
        for rows, seconds in service_times_s.items():
            if rows < 1 or not 0 < seconds < math.inf:
                raise ValueError(f"a batch of {rows} rows cannot take {seconds} s")
            for _ in range(_SEED):
                self._size(rows).learn(seconds, self._observed)

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
                self._knots = _connected(self._known())
            service_s = self._asked_s[rows] = _interpolated(self._knots, padded(rows, self._padded_to))
        return service_s

    def observe(self, *, rows: int, seconds: float) -> None:
        """Learn that a batch of `rows` took `seconds`."""
        self._observed += 1
        if not self._observed:
            return
        if self._padded_to:
            rows = padded(rows, self._padded_to)
        size = self._size(rows)
        seconds = max(seconds, _SHORTEST_S)
        expected_s = size.seconds if size.batches >= _SEED else self.service_s(rows)
        if expected_s and self.knows_enough and seconds > _OUTLIER * expected_s:
            self._usual_noise = self._usual_noise if self._outliers else self.noise
            self._outliers.append((rows, seconds))
            seconds = _OUTLIER * expected_s
        else:
            self._outliers.clear()
        if size.batches >= _SEED:
            self._compare(seconds / size.seconds)
        is_new = not size.batches
        size.learn(seconds, self._observed)
        has_moved = abs(size.seconds - size.drawn_s) > _MOVED * size.drawn_s
        if has_moved or is_new or not self._observed % _DRAWN_ANEW:
            self._forget_curve()
        if len(self._outliers) == _BELIEVED:
            self._believe()

    def _believe(self) -> None:
        """So many outliers in a row are none: they are what is known from now on.

        What was known of other sizes goes with the rest. Were it corrected by guess, a machine that stalls now and then
        would make them slower each time, and nobody is let in to show that they are not.
        """
        outliers, self._outliers = self._outliers, []
        self.noise = self._usual_noise
        self._sizes.clear()
        for rows, seconds in outliers:
            self._size(rows).learn(seconds, self._observed)
        self._drift, self._drift_of = 1.0, 0
        self._forget_curve()

    def _compare(self, ratio: float) -> None:
        """A batch took `ratio` of what was expected."""
        self.noise += max(1 / self._observed, _NOISE_FORGETS) * ((ratio - self._drift) ** 2 - self.noise)
        self._drift_of += 1
        self._drift += max(1 / self._drift_of, _DRIFT_FORGETS) * (ratio - self._drift)
        variance = self.noise * max(1 / self._drift_of, _DRIFT_FORGETS / 2)
        if abs(self._drift - 1) > max(_SURPRISE * math.sqrt(variance), _LEAST_DRIFT):
            for size in self._sizes.values():
                size.seconds *= self._drift
            self._drift, self._drift_of = 1.0, 0
            self._forget_curve()

    def _forget_curve(self) -> None:
        if self._knots is not None:
            self._knots = None
            self._asked_s.clear()

    def _known(self) -> dict[int, "_Size"]:
        """Without the larger ones that have not run for long: what is refused for them would never be tried again.

        The smaller ones count, as far as those that have run do not contradict them.
        """
        for size in self._sizes.values():
            if self._observed - size.seen > _FRESH:
                size.batches = 0
        least = min((rows for rows, size in self._sizes.items() if size.batches), default=math.inf)
        return {rows: size for rows, size in self._sizes.items() if size.batches or (size.seconds and rows < least)}

    def _size(self, rows: int) -> "_Size":
        first, last = _alike(rows)
        size = self._sizes.get(last)
        if size is None:
            size = self._sizes[last] = _Size(first, last)
        return size


class _Size:
    """The mean of batches of `first_rows` to `last_rows`; `drawn_s` is what the curve was drawn with.

    Of no `batches` it is what nobody vouches for: their first one replaces it.
    """

    __slots__ = ("batches", "drawn_s", "first_rows", "last_rows", "seconds", "seen")

    def __init__(self, first_rows: int, last_rows: int) -> None:
        self.first_rows = first_rows
        self.last_rows = last_rows
        self.batches = 0
        self.seconds = self.drawn_s = 0.0
        self.seen = 0

    def learn(self, seconds: float, seen: int) -> None:
        self.seen = seen
        self.batches += 1
        self.seconds += max(1 / self.batches, _SHAPE_FORGETS) * (seconds - self.seconds)


def _alike(rows: int) -> tuple[int, int]:
    """The sizes that are learnt together: up to 16 rows each for itself, then 17..18, ..., 31..32, 33..36, ..."""
    step = 1 << max((rows - 1).bit_length() - 4, 0)
    last = -(-rows // step) * step
    return last - step + 1, last


def _connected(sizes: Mapping[int, _Size]) -> list[tuple[int, float]]:
    """The means in order of size; where a larger one seems to be quicker they are pooled (isotonic regression)."""
    pools: list[tuple[int, float, int, int]] = []  # batches, mean seconds, rows: from, to
    for _, size in sorted(sizes.items()):
        batches, seconds, first_rows = size.batches, size.seconds, size.first_rows
        size.drawn_s = seconds
        while pools and pools[-1][1] >= seconds:
            others, others_s, first_rows, _ = pools.pop()
            batches += others
            seconds += (others / batches if batches else 0.5) * (others_s - seconds)
        pools.append((batches, seconds, first_rows, size.last_rows))
    return [(rows, seconds) for _, seconds, *ends in pools for rows in ends]


def _interpolated(knots: list[tuple[int, float]], rows: int) -> float:
    """On the straight line between the knots around `rows`; flat outside of them."""
    below_rows, below_s = 0, knots[0][1] if knots else 0.0
    for knot_rows, knot_s in knots:
        if rows == knot_rows:
            return knot_s
        if rows < knot_rows:
            return below_s + (knot_s - below_s) * (rows - below_rows) / (knot_rows - below_rows)
        below_rows, below_s = knot_rows, knot_s
    return below_s
