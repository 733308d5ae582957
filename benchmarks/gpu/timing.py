"""How long a call takes, again and again."""

import time
from collections.abc import Callable


def timed(call: Callable[[], object], *, seconds: float, warm: int = 3, at_least: int = 5) -> dict[str, float]:
    """Milliseconds of a call, over about so many seconds, after some that do not count."""
    for _ in range(warm):
        call()
    times_s: list[float] = []
    end_s = time.perf_counter() + seconds
    while len(times_s) < at_least or time.perf_counter() < end_s:
        start_s = time.perf_counter()
        call()
        times_s.append(time.perf_counter() - start_s)
    return {**percentiles(times_s), "runs": len(times_s)}


def percentiles(times_s: list[float]) -> dict[str, float]:
    """The median and the 99th percentile in milliseconds, by nearest rank."""
    ordered = sorted(times_s)
    return {f"p{percent}_ms": round(1000 * ordered[-(-len(ordered) * percent // 100) - 1], 4) for percent in (50, 99)}
