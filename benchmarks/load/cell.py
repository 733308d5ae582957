"""One cell of an overload table: what a stretch of open-loop exchanges amounts to."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from load.open_loop import BROKEN, NO_ROOM, UNANSWERED, Exchange

REFUSED = (429, 503)
LATE_SENDER_MS = 10.0
"""A sender whose p99 is later than this has not sent what it was asked to."""


def summarise(
    exchanges: Sequence[Exchange],
    is_right: Callable[[int, bytes], bool],
    *,
    slo_s: float,
    capacity_per_s: float,
    window_s: tuple[float, float],
) -> dict[str, Any]:
    """The numbers of one cell.

    Goodput counts the right answers that ended within the window, each within `slo_s` of its planned time; latencies
    and statuses are those of the requests planned within it.

    Raises:
        RuntimeError: An answer was wrong, there was none, or a refusal did not say when to come again.
    """
    first_s, last_s = window_s
    good = 0
    for number, exchange in enumerate(exchanges):
        if exchange.status == 200:
            if not is_right(number, exchange.body):
                raise RuntimeError(f"a wrong answer to request {number}: {exchange.body[:200]!r}")
            good += exchange.latency_s <= slo_s and first_s <= exchange.ended_s < last_s
        elif exchange.status in REFUSED and exchange.retry_after_s < 1:
            raise RuntimeError(f"a refusal without Retry-After: {exchange}")
    if not any(exchange.status == 200 for exchange in exchanges):
        raise RuntimeError("nothing was answered")
    planned = [exchange for exchange in exchanges if first_s <= exchange.planned_s < last_s]
    admitted = [exchange.latency_s for exchange in planned if exchange.status == 200]
    refused = [exchange.latency_s for exchange in planned if exchange.status in REFUSED]
    late = [exchange.sent_s - exchange.planned_s for exchange in exchanges if exchange.status != BROKEN]
    late_p99_ms = percentile_ms(late, 99) or 0.0
    return {
        "offered_per_s": round(len(planned) / (last_s - first_s), 1),
        "goodput_per_s": round(good / (last_s - first_s), 1),
        "goodput_percent": round(100 * good / (last_s - first_s) / capacity_per_s, 1),
        "admitted_p50_ms": percentile_ms(admitted, 50),
        "admitted_p99_ms": percentile_ms(admitted, 99),
        "refused_p50_ms": percentile_ms(refused, 50),
        "refused_p99_ms": percentile_ms(refused, 99),
        "late_answers": sum(exchange.status == 200 and exchange.latency_s > slo_s for exchange in exchanges),
        "statuses": {_status(status): count for status, count in sorted(Counter(x.status for x in planned).items())},
        "broken_because": dict(Counter(x.body.decode("latin-1") for x in exchanges if x.status == BROKEN)),
        "sender_late_p50_ms": percentile_ms(late, 50),
        "sender_late_p99_ms": late_p99_ms,
        "sender_late_max_ms": round(1000 * max(late), 2),
        "is_sender_late": late_p99_ms > LATE_SENDER_MS,
    }


def percentile_ms(times_s: Sequence[float], percent: int) -> float | None:
    """The nearest-rank percentile in milliseconds; `None` of nothing."""
    if not times_s:
        return None
    return round(1000 * sorted(times_s)[max(math.ceil(len(times_s) * percent / 100), 1) - 1], 2)


def median_of(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of each number over the rounds of a cell; statuses are added up, one late sender makes it late."""
    merged: dict[str, Any] = {}
    for key in rounds[0]:
        values = [found[key] for found in rounds if found[key] is not None]
        if key in ("statuses", "broken_because"):
            merged[key] = dict(sum((Counter(value) for value in values), Counter[str]()))
        elif key == "is_sender_late":
            merged[key] = any(values)
        else:
            merged[key] = round(statistics.median(values), 2) if values else None
    return merged


def _status(status: int) -> str:
    return {UNANSWERED: "unanswered", BROKEN: "broken", NO_ROOM: "no room"}.get(status, str(status))
