"""The numbers: counter, gauge and histogram families whose series are plain lists.

A series' cell is one list, so `list(cell)` copies it in one atomic step and a scrape never sees half an observation:

    counter, gauge   [value]
    histogram        [bucket 0, ..., bucket n-1, +Inf bucket, sum]    each observation is in one bucket

The writer resolves a `Series` once, keeps it, and adds to `series.cell` in place. Cells have one writer, the event
loop; a scrape calls `copy()`, and everything after it (Metric objects, rendering) reads the copy.
"""

import logging
import re
import time
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import ClassVar, Literal, SupportsFloat, TypeAlias

from prometheus_client.core import CounterMetricFamily, Exemplar, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from redserve.metrics.buckets import checked_bounds

_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
_MAX_EXEMPLAR_CHARACTERS = 128

Across = Literal["count", "sum", "max", "min"]
"""How the numbers of several processes become one: `count` is a sum that outlives its process."""

Number: TypeAlias = int | float
"""A count stays whole: `float` alone would make `1.0` of it where this is compiled."""

logger = logging.getLogger("redserve.metrics")


class Series:
    """One child of a family: its label values and its numbers.

    Attributes:
        values: The label values, in the order of the family's `labels`.
        cell: The numbers, written in place.
        exemplars: Position in the cell to its latest exemplar; `None` until the first.
        template: The lines of this series, as the renderer caches them; nobody else reads it.
    """

    __slots__ = ("cell", "exemplars", "template", "values")

    def __init__(self, values: tuple[str, ...], cell: list[Number]) -> None:
        self.values = values
        self.cell = cell
        self.exemplars: dict[int, Exemplar] | None = None
        self.template: str | None = None

    def set_exemplar(self, position: int, labels: Mapping[str, object], value: float) -> None:
        """Remember what stands for the number at `position` of the cell; `value` is what was observed.

        Raises:
            ValueError: A label name is not one, or names and values exceed 128 characters (OpenMetrics 1.0, exemplars).
        """
        if not all(_LABEL_NAME.match(name) for name in labels):
            raise ValueError(f"exemplar label names must be letters, digits and underscores, got {sorted(labels)}")
        clean = {name: _encodable(text) for name, text in labels.items()}
        if sum(len(name) + len(text) for name, text in clean.items()) > _MAX_EXEMPLAR_CHARACTERS:
            raise ValueError(f"an exemplar's names and values must not exceed {_MAX_EXEMPLAR_CHARACTERS} characters")
        if self.exemplars is None:
            self.exemplars = {}
        self.exemplars[position] = Exemplar(clean, value, time.time())


SeriesCopy = tuple[Series, list[Number], Mapping[int, Exemplar]]
"""The series, its cell at the time of the copy, and its exemplars by position."""


class Family(ABC):
    """A name, its help text, its label names and the series seen so far.

    Attributes:
        name: As exposed, without `_total`, `_bucket`, ...
        labels: The label names.
        unit: `seconds`, or empty.
        across: How the numbers of several processes become one.
    """

    kind: ClassVar[str]
    across: Across = "count"

    def __init__(self, name: str, documentation: str, labels: Sequence[str] = (), *, unit: str = "") -> None:
        self.name = name
        self.documentation = documentation
        self.labels = tuple(labels)
        self.unit = unit
        self._series: dict[tuple[str, ...], Series] = {}

    def series(self, *values: str) -> Series:
        """The series of these label values, made (at zero) when it is not there yet.

        Raises:
            ValueError: There are more or fewer values than label names.
        """
        found = self._series.get(values)
        if found is None:
            if len(values) != len(self.labels):
                raise ValueError(f"{self.name} has the labels {self.labels}, got the values {values}")
            clean = tuple(_encodable(value) for value in values)
            found = self._series.setdefault(clean, Series(clean, self._new_cell()))
        return found

    def remove(self, *values: str) -> None:
        """Forget the series; one that is not there is no mistake."""
        self._series.pop(tuple(_encodable(value) for value in values), None)

    def copy(self) -> list[SeriesCopy]:
        """Every series as it is now. On the event loop all of them are of one moment; elsewhere each of them is."""
        return [
            (series, series.cell[:], series.exemplars.copy() if series.exemplars else {})
            for series in list(self._series.values())
        ]

    @property
    def series_per_row(self) -> int:
        """Time series that Prometheus stores for one `Series`."""
        return 1

    def _new_cell(self) -> list[Number]:
        return [0]

    @abstractmethod
    def metric(self, rows: Iterable[SeriesCopy]) -> Metric:
        """The copied `rows` as prometheus_client's own object."""


class Counter(Family):
    """Only rises: `series.cell[0] += 1`."""

    kind = "counter"

    def metric(self, rows: Iterable[SeriesCopy]) -> Metric:
        family = CounterMetricFamily(self.name, self.documentation, labels=self.labels, unit=self.unit)
        for series, cell, exemplars in rows:
            family.add_metric(series.values, cell[0], exemplar=exemplars.get(0))
        return family


class Gauge(Family):
    """Rises and falls: `series.cell[0] = value`, or is read from callables when it is scraped (`watch`)."""

    kind = "gauge"

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        *,
        unit: str = "",
        across: Literal["sum", "max", "min"] = "sum",
    ) -> None:
        super().__init__(name, documentation, labels, unit=unit)
        self.across = across
        self._readers: dict[Series, dict[object, Callable[[], SupportsFloat]]] = {}

    def watch(self, read: Callable[[], SupportsFloat], *values: str) -> Callable[[], None]:
        """Let this series be what `read()` returns at each scrape; several watches of one series are summed.

        Returns:
            A function that ends this watch; with the last one the series is gone.
        """
        series = self.series(*values)
        readers = self._readers.setdefault(series, {})
        watch = object()  # two watches may read the same function
        readers[watch] = read

        def stop() -> None:
            if readers.pop(watch, None) is not None and not readers:
                del self._readers[series]
                self.remove(*values)

        return stop

    def copy(self) -> list[SeriesCopy]:
        """As of any family; a series whose `read` raises is left out, and logged."""
        rows = super().copy()
        if not self._readers:
            return rows
        return [(series, cell, {}) for series, kept, _ in rows if (cell := self._read(series, kept)) is not None]

    def metric(self, rows: Iterable[SeriesCopy]) -> Metric:
        family = GaugeMetricFamily(self.name, self.documentation, labels=self.labels, unit=self.unit)
        for series, cell, _ in rows:
            family.add_metric(series.values, cell[0])
        return family

    def _read(self, series: Series, kept: list[Number]) -> list[Number] | None:
        readers = self._readers.get(series)
        if readers is None:
            return kept
        try:
            return [sum([_number(read()) for read in tuple(readers.values())])]
        except Exception:
            logger.exception("a gauge could not be read", extra={"family": self.name, "labels": series.values})
            return None


class Histogram(Family):
    """Counts observations by upper bound, and sums them.

    Attributes:
        bounds: The finite upper bounds, rising; an observation equal to a bound is within it.
        le: All bounds as label texts, `+Inf` last.
    """

    kind = "histogram"

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str] = (), *, bounds: Sequence[float], unit: str = ""
    ) -> None:
        super().__init__(name, documentation, labels, unit=unit)
        self.bounds = checked_bounds(bounds)
        self.le = (*(number_text(bound) for bound in self.bounds), "+Inf")

    @property
    def series_per_row(self) -> int:
        """The buckets, the count and the sum."""
        return len(self.le) + 2

    def observe(self, series: Series, value: float) -> int:
        """Count `value` in `series`, and return the position of its bucket."""
        cell = series.cell
        position = bisect_left(self.bounds, value)
        cell[position] += 1
        cell[-1] += value
        return position

    def observe_all(self, series: Series, values: Sequence[float]) -> None:
        """Count each of `values` in `series`."""
        cell, bounds = series.cell, self.bounds
        numbers = [float(value) for value in values]
        for number in numbers:
            cell[bisect_left(bounds, number)] += 1
        cell[-1] += sum(numbers)

    def metric(self, rows: Iterable[SeriesCopy]) -> Metric:
        family = HistogramMetricFamily(self.name, self.documentation, labels=self.labels, unit=self.unit)
        for series, cell, exemplars in rows:
            buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
            for position, (le, count) in enumerate(zip(self.le, accumulate(cell[:-1]), strict=True)):
                exemplar = exemplars.get(position)
                buckets.append((le, count) if exemplar is None else (le, count, exemplar))
            family.add_metric(series.values, buckets, cell[-1])
        return family

    def _new_cell(self) -> list[Number]:
        return [*[0] * len(self.le), 0.0]


def number_text(value: Number) -> str:
    """As Prometheus writes it: `+Inf`, `NaN`, `1e+06`; whole counts without a fraction."""
    return str(value) if value.__class__ is int else floatToGoString(value)  # type: ignore[no-untyped-call]


def _number(value: SupportsFloat) -> Number:
    return value if isinstance(value, int) else float(value)


def _encodable(value: object) -> str:
    """One lone surrogate in a label would make every later scrape fail."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")
