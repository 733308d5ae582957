"""Where a histogram's bounds lie: `latency_buckets()` keeps every quantile's error small and known.

The default walks the powers of ten in equal steps (15 a decade). With an SLO the bounds stand close around it,
and it is itself one of them, so "share of requests within the SLO" is exact:

    lo ..1.5.. slo/4 ..1.1.. slo ..1.1.. 4*slo ..1.5.. hi
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

_DENSE_GROWTH = 1.1
_SPARSE_GROWTH = 1.5
_DENSE_SPAN = 4.0
_CLOSEST = 1.04  # a bound nearer than this to an SLO or to an end adds a series and no knowledge
_MAX_PER_DECADE = 100  # more would meet again after rounding to three digits


def latency_buckets(
    slo: float | Sequence[float] | None = None, *, lo: float = 0.0005, hi: float = 10.0, per_decade: int = 15
) -> tuple[float, ...]:
    """Upper bounds for latencies in seconds, without +Inf, rounded to three digits.

    Args:
        slo: The latency, or latencies, that a promise is made about. Each is a bound exactly as given; bounds grow by
            1.1 at most from a quarter of it to four times it, by 1.5 at most elsewhere (49 bounds for an SLO of 0.1 s).
        lo: The smallest bound.
        hi: The largest bound; what is slower is only known to be slower.
        per_decade: Bounds for each factor of ten, used when there is no SLO. 15 gives 66 bounds: a quantile is never
            more than 17 % off (one step), and at most 7.5 % over the shapes of `benchmarks/quantile_error.py`.

    Raises:
        ValueError: `lo` and `hi` are not a positive range, an SLO is outside it, or `per_decade` is not in 1..100.
    """
    if not 0 < lo < hi < math.inf:
        raise ValueError(f"lo and hi must be finite with 0 < lo < hi, got lo={lo}, hi={hi}")
    if not 1 <= per_decade <= _MAX_PER_DECADE:
        raise ValueError(f"per_decade must be in 1..{_MAX_PER_DECADE}, got {per_decade}")
    if slo is None:
        return tuple(_decades(lo, hi, per_decade))
    slos = sorted({float(slo)} if isinstance(slo, int | float) else {float(one) for one in slo})
    if not slos:
        raise ValueError("slo must hold at least one latency")
    for one in slos:
        if not lo <= one <= hi:
            raise ValueError(f"an SLO of {one} s is outside lo={lo}..hi={hi}; move lo or hi")
    return tuple(_around(slos, lo, hi))


def checked_bounds(bounds: Sequence[float]) -> tuple[float, ...]:
    """The bounds as finite floats; a last `+Inf`, which other libraries ask for, is dropped.

    Raises:
        ValueError: There are none, or they are not positive, finite and strictly rising.
    """
    finite = tuple(float(bound) for bound in bounds)
    if finite and finite[-1] == math.inf:
        finite = finite[:-1]
    if not finite:
        raise ValueError("a histogram needs at least one finite bucket bound")
    if not (finite[0] > 0 and finite[-1] < math.inf and all(low < high for low, high in pairwise(finite))):
        raise ValueError(f"bucket bounds must be positive, finite and strictly rising, got {finite}")
    return finite


def _decades(lo: float, hi: float, per_decade: int) -> Iterator[float]:
    """`lo`, the grid through the powers of ten, `hi`; a grid point too close to an end gives way to it."""
    margin = 0.25 / per_decade
    first = math.ceil((math.log10(lo) + margin) * per_decade)
    last = math.floor((math.log10(hi) - margin) * per_decade)
    yield lo
    for step in range(first, last + 1):
        yield _three_digits(10 ** (step / per_decade))
    yield hi


def _around(slos: list[float], lo: float, hi: float) -> Iterator[float]:
    """The anchors (ends, SLOs, seams between dense and sparse), and equal steps from each to the next."""
    dense = _merged([(one / _DENSE_SPAN, one * _DENSE_SPAN) for one in slos])
    edges = [lo, hi, *(edge for span in dense for edge in span if lo < edge < hi)]
    anchors = set(slos)
    for edge in edges:  # lo and hi come first: a seam beside one of them gives way
        if all(not 1 / _CLOSEST < edge / anchor < _CLOSEST for anchor in anchors):
            anchors.add(edge)
    ordered = sorted(anchors)
    yield ordered[0]
    for low, high in pairwise(ordered):
        middle = math.sqrt(low * high)
        growth = _DENSE_GROWTH if any(start < middle < end for start, end in dense) else _SPARSE_GROWTH
        steps = math.ceil(math.log(high / low) / math.log(growth) - 1e-9)
        for step in range(1, steps):
            yield _three_digits(low * (high / low) ** (step / steps))
        yield high


def _merged(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Sorted spans, with those that overlap, or leave less than one sparse step between them, made one."""
    merged: list[tuple[float, float]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1] * _SPARSE_GROWTH:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


def _three_digits(value: float) -> float:
    return float(f"{value:.3g}")
