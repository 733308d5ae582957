"""How long a batch takes, by its rows: learnt from each clean run, pure logic.

seconds = level * shape(rows) * noise

shape   a mean for each size (each eighth of an octave above 16 rows), slow to forget; between sizes interpolated,
        beyond the largest one flat, never falling: so a size that was not seen yet is predicted too short rather
        than too long, is tried, and is known from then on
level   one factor for all sizes, quick to forget: a device that turns half as fast is known after a dozen batches,
        whichever sizes they had
noise   its relative variance, the same for all sizes
"""

from collections.abc import Mapping

_SHAPE_FORGETS = 1 - 0.5 ** (1 / 200)  # half of a size after 200 batches of it
_LEVEL_FORGETS = 0.1
_NOISE_FORGETS = 0.02
_FIRST_NOISE = 0.1**2
_SEEDED = (
    4  # what a time measured at warm-up counts, in batches; also when a size is known well enough to tell the level
)
_KNOWN = 3  # batches, without a seed
_OUTLIER = 3.0  # times what was predicted; more counts as that much


class CostModel:
    """Predicts service times.

    Args:
        service_times_s: Seconds by rows, measured at warm-up; may be empty.

    Attributes:
        noise: Relative variance of a service time.
        observed: Batches, and sizes known from warm-up, counted as some.
    """

    def __init__(self, service_times_s: Mapping[int, float]) -> None:
        self._bins: dict[int, _Bin] = {}
        self._level = 1.0
        self._knots: list[tuple[float, float]] = []
        self._shape: dict[int, float] = {}
        self.noise = _FIRST_NOISE
        self.observed = 0
        for rows, seconds in service_times_s.items():
            self._bins[_bin_of(rows)] = seeded = _Bin()
            for _ in range(_SEEDED):
                seeded.learn(rows, seconds)
            self.observed = _KNOWN
        self._connect()

    @property
    def is_known(self) -> bool:
        """Whether predictions can be relied upon."""
        return self.observed >= _KNOWN

    def service_s(self, rows: int) -> float:
        """The mean for a batch of `rows`; 0 before anything is known."""
        shape_s = self._shape.get(rows)
        if shape_s is None:
            shape_s = self._shape[rows] = _interpolate(self._knots, rows)
        return self._level * shape_s

    def observe(self, *, rows: int, seconds: float) -> None:
        """Learn that a batch of `rows` took `seconds`."""
        self.observed += 1
        size = self._bins.setdefault(_bin_of(rows), _Bin())
        if size.count >= _SEEDED:
            ratio = min(seconds / max(self.service_s(rows), 1e-9), _OUTLIER)
            self.noise += max(1 / self.observed, _NOISE_FORGETS) * ((ratio - 1) ** 2 - self.noise)
            seconds = ratio * self.service_s(rows)
            self._level *= 1 + _LEVEL_FORGETS * (ratio - 1)
        size.learn(rows, seconds / self._level)
        self._connect()

    def _connect(self) -> None:
        """Draw the shape anew: sizes in order, neighbours pooled where the larger one seems to be quicker."""
        pools: list[tuple[float, float, float]] = []  # weight, rows, seconds: means
        for _, size in sorted(self._bins.items()):
            weight, rows, seconds = float(size.count), size.rows, size.seconds
            while pools and pools[-1][2] >= seconds:
                other, other_rows, other_s = pools.pop()
                rows = (weight * rows + other * other_rows) / (weight + other)
                seconds = (weight * seconds + other * other_s) / (weight + other)
                weight += other
            pools.append((weight, rows, seconds))
        self._knots = [(rows, seconds) for _, rows, seconds in pools]
        self._shape.clear()


class _Bin:
    """Batches of one size, or of sizes close to each other."""

    __slots__ = ("count", "rows", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.rows = 0.0
        self.seconds = 0.0

    def learn(self, rows: int, seconds: float) -> None:
        self.count += 1
        share = max(1 / self.count, _SHAPE_FORGETS)
        self.rows += share * (rows - self.rows)
        self.seconds += share * (seconds - self.seconds)


def _bin_of(rows: int) -> int:
    """Each size for itself up to 16; then 8 of them to each doubling: 17..18, ..., 31..32, 33..36, ..."""
    shift = max((rows - 1).bit_length() - 4, 0)
    return 8 * shift + ((rows - 1) >> shift)


def _interpolate(knots: list[tuple[float, float]], rows: float) -> float:
    if not knots:
        return 0.0
    before_rows, before_s = knots[0]
    for knot_rows, knot_s in knots:
        if rows <= knot_rows:
            if knot_rows == before_rows:
                return knot_s
            return before_s + (knot_s - before_s) * (rows - before_rows) / (knot_rows - before_rows)
        before_rows, before_s = knot_rows, knot_s
    return before_s
