"""Latencies as HDR histograms: three significant digits from 1 us to an hour; merged without loss, stored as text.

The library keeps whole numbers, here microseconds. Its recording costs 1.5 us of Python, so a recorder counts in a dict
and hands whole counts over at the end; the values it counts are rounded as the histogram would.
"""

from collections.abc import Mapping
from typing import Any

from hdrh.histogram import HdrHistogram

_DIGITS = 3
_LOWEST_US, _HIGHEST_US = 1, 3_600_000_000
_EXACT_BITS = 11  # 2048 values a power of two: three digits

PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9)


def round_us(seconds: float) -> int:
    """Microseconds, rounded down to what a histogram tells apart."""
    value_us = int(seconds * 1e6)
    shift = value_us.bit_length() - _EXACT_BITS
    return value_us if shift <= 0 else value_us >> shift << shift


class Histogram:
    """How often which time was seen."""

    def __init__(self, encoded: str = "") -> None:
        self._hdr: Any = HdrHistogram(_LOWEST_US, _HIGHEST_US, _DIGITS)
        if encoded:
            self._hdr.decode_and_add(encoded)

    @classmethod
    def of(cls, counts: Mapping[int, int]) -> "Histogram":
        """From counts by microseconds; what is out of range counts as its nearest end."""
        histogram = cls()
        for value_us, count in counts.items():
            histogram._hdr.record_value(min(max(value_us, _LOWEST_US), _HIGHEST_US), count)
        return histogram

    def __reduce__(self) -> tuple[type["Histogram"], tuple[str]]:
        """Between processes it goes as text."""
        return Histogram, (self.encode(),)

    def __len__(self) -> int:
        """How many times were seen."""
        return int(self._hdr.get_total_count())

    def add(self, other: "Histogram") -> None:
        """Take in all of `other`."""
        self._hdr.add(other._hdr)

    def encode(self) -> str:
        """As text, which the constructor takes."""
        return str(self._hdr.encode().decode())

    def percentile_s(self, percent: float) -> float:
        """The time that `percent` of the seen ones do not exceed, 0.1 % too large at most; 0 of none."""
        return self.percentiles_s((percent,))[0]

    def percentiles_s(self, percents: tuple[float, ...] = PERCENTILES) -> list[float]:
        """Several at once, which costs no more than one."""
        if not len(self):
            return [0.0] * len(percents)
        found = self._hdr.get_percentile_to_value_dict(list(percents))
        return [found[percent] / 1e6 for percent in percents]

    def mean_s(self) -> float:
        """The mean; 0 of none."""
        return float(self._hdr.get_mean_value()) / 1e6 if len(self) else 0.0

    def max_s(self) -> float:
        """The longest; 0 of none."""
        return float(self._hdr.get_max_value()) / 1e6 if len(self) else 0.0

    def count_within(self, seconds: float) -> int:
        """How many were at most `seconds`, to three digits."""
        limit_us = self._hdr.get_highest_equivalent_value(int(seconds * 1e6))
        return sum(
            item.count_added_in_this_iter_step
            for item in self._hdr.get_recorded_iterator()
            if item.value_iterated_to <= limit_us
        )
