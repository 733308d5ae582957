"""How far is a quantile that is read from histogram buckets from the true one, for several layouts of bounds?

    python benchmarks/quantile_error.py [--quick]      needs redserve alone; prints a table, writes benchmarks/results/

No requests are made and nothing is sampled. Each shape of latencies is a distribution that is known exactly; it is
scaled so that its true quantile lies on each of 181 points in turn, from 0.5 ms to 10 s on a logarithmic scale. The
buckets get exactly the share of the distribution that falls into them, and the quantile is read from them as Prometheus
does in `histogram_quantile` (linear within the bucket, from 0 in the first one). The error is |read - true| / true.

An SLO layout is asked twice: for quantiles between a quarter and four times its SLO, which it is for, and anywhere.
"""

import argparse
import json
import math
import platform
import statistics
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from redserve.metrics.buckets import latency_buckets

LO_S, HI_S = 0.0005, 10.0
QUANTILES = (0.5, 0.95, 0.99)
RESULTS = Path(__file__).parent / "results" / "quantile_error.json"

Distribution = Callable[[float], float]  # the share of latencies up to x, when the typical latency is 1


def lognormal(sigma: float, median: float = 1.0) -> Distribution:
    return lambda x: 0.5 * math.erfc(-math.log(x / median) / (sigma * math.sqrt(2))) if x > 0 else 0.0


def mixture(*parts: tuple[float, Distribution]) -> Distribution:
    return lambda x: sum(share * part(x) for share, part in parts)


def pareto(alpha: float) -> Distribution:
    return lambda x: 1 - x**-alpha if x > 1 else 0.0


def wait_and_compute(sigma: float, steps: int = 64) -> Distribution:
    """Queued for anything between nothing and one batch time, then run for about one batch time."""
    compute = lognormal(sigma)
    waits = [(step + 0.5) / steps for step in range(steps)]
    return lambda x: sum(compute(x - wait) for wait in waits) / steps


SHAPES: dict[str, Distribution] = {
    "lognormal, sigma 0.1": lognormal(0.1),
    "lognormal, sigma 0.3": lognormal(0.3),
    "lognormal, sigma 0.7": lognormal(0.7),
    "hot and cold, 97 : 3, 20 times slower": mixture((0.97, lognormal(0.2)), (0.03, lognormal(0.2, 20))),
    "cache, 60 : 40, 5 times slower": mixture((0.6, lognormal(0.2)), (0.4, lognormal(0.2, 5))),
    "Pareto, alpha 1.8": pareto(1.8),
    "batch: wait and compute": wait_and_compute(0.1),
}


@dataclass(frozen=True)
class Layout:
    """Bounds, and between which true quantiles their error is looked at."""

    name: str
    bounds: Sequence[float]
    from_s: float = LO_S
    to_s: float = HI_S


def layouts() -> list[Layout]:
    common = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
    chosen = [
        Layout("prometheus_client, OpenTelemetry", common),
        Layout("latency_buckets(per_decade=10)", latency_buckets(per_decade=10)),
        Layout("latency_buckets()", latency_buckets()),
        Layout("latency_buckets(per_decade=20)", latency_buckets(per_decade=20)),
    ]
    for slo in (0.013, 0.1, 1.0):
        bounds = latency_buckets(slo)
        chosen.append(Layout(f"latency_buckets({slo}), slo/4..4*slo", bounds, slo / 4, slo * 4))
        chosen.append(Layout(f"latency_buckets({slo}), anywhere", bounds))
    return chosen


def true_quantile(shape: Distribution, q: float) -> float:
    """By bisection; every shape here has its quantiles between 1e-3 and 1e3."""
    low, high = 1e-3, 1e3
    for _ in range(100):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if shape(middle) < q else (low, middle)
    return high


def read_quantile(bounds: Sequence[float], cumulative: Sequence[float], q: float) -> float:
    """`histogram_quantile` of classic buckets; `cumulative` are shares, without +Inf."""
    place = bisect_left(cumulative, q)
    if place == len(bounds):
        return bounds[-1]
    start = bounds[place - 1] if place else 0.0
    below = cumulative[place - 1] if place else 0.0
    return start + (bounds[place] - start) * (q - below) / (cumulative[place] - below)


def errors(layout: Layout, shape: Distribution, q: float, points: int) -> list[float]:
    unit = true_quantile(shape, q)
    found = []
    for step in range(points):
        true_s = layout.from_s * (layout.to_s / layout.from_s) ** (step / (points - 1))
        scale_s = true_s / unit
        cumulative = [shape(bound / scale_s) for bound in layout.bounds]
        found.append(abs(read_quantile(layout.bounds, cumulative, q) - true_s) / true_s)
    return found


def measure(layout: Layout, points: int) -> dict[str, Any]:
    per_shape = {name: {q: errors(layout, shape, q, points) for q in QUANTILES} for name, shape in SHAPES.items()}
    together = sorted(error for by_q in per_shape.values() for found in by_q.values() for error in found)
    return {
        "layout": layout.name,
        "finite_bounds": len(layout.bounds),
        "worst": {f"p{q * 100:g}": max(max(by_q[q]) for by_q in per_shape.values()) for q in QUANTILES},
        "worst_by_shape": {name: max(max(found) for found in by_q.values()) for name, by_q in per_shape.items()},
        "all": {
            "median": statistics.median(together),
            "p90": together[int(0.9 * (len(together) - 1))],
            "max": together[-1],
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Error of p50, p95 and p99 read from histogram buckets.")
    parser.add_argument("--quick", action="store_true", help="13 points instead of 181, and nothing is written")
    is_quick = parser.parse_args().quick

    results = [measure(layout, points=13 if is_quick else 181) for layout in layouts()]
    print(
        f"{'relative error, %':46}{'bounds':>7}{'p50 max':>9}{'p95 max':>9}{'p99 max':>9}"
        f"{'median':>8}{'p90':>7}{'max':>7}"
    )
    for result in results:
        numbers = [*result["worst"].values(), *result["all"].values()]
        print(
            f"{result['layout']:46}{result['finite_bounds']:7}"
            + "".join(f"{number * 100:{width}.1f}" for number, width in zip(numbers, (9, 9, 9, 8, 7, 7), strict=True))
        )
    if not is_quick:
        document = {
            "command": "python benchmarks/quantile_error.py",
            "versions": {"python": platform.python_version(), "redserve": version("redserve")},
            "points": 181,
            "range_s": [LO_S, HI_S],
            "results": results,
        }
        RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
