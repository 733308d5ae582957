"""What must be known before the numbers of a run are believed: pure judgements on a tally."""

from redserve.bench.load import Load
from redserve.bench.tally import Tally

_MOST_UNSENT_RATIO = 0.001
_LEAST_DELAY_S = 0.001  # less is the scheduling of any machine
_TIMER_DELAY_S = 0.0001  # less is how late a timer wakes an idle process
_MOST_DELAY_RATIO = 0.1
"""The sender's own delay may be so much of the p99 it reports."""


def kept_rate(tally: Tally, *, limit_s: float | None = None) -> bool:
    """Whether an open loop sent what it was asked to, when it was asked to.

    Args:
        tally: Of the run.
        limit_s: What matters, such as an SLO; in place of the p99.
    """
    allowed_s = max(_MOST_DELAY_RATIO * (limit_s or tally.latency.percentile_s(99)), _LEAST_DELAY_S)
    return tally.unsent <= _MOST_UNSENT_RATIO * tally.planned and tally.own_delay.percentile_s(99) <= allowed_s


def is_much(delay_s: float, *, of_s: float) -> bool:
    """Whether a delay that a latency counts makes up so much of it that the reader must know."""
    return delay_s > max(_MOST_DELAY_RATIO * of_s, _LEAST_DELAY_S)


def is_busy(delay_s: float, *, of_s: float) -> bool:
    """Whether the sender of a closed loop gets to answers so late, at the median, that the reader must know."""
    return delay_s > max(_MOST_DELAY_RATIO * of_s, _TIMER_DELAY_S)


def within_slo_ratio(tally: Tally, slo_s: float) -> float:
    """The part of all planned requests that were answered with 2xx within `slo_s`."""
    return tally.latency.count_within(slo_s) / tally.planned if tally.planned else 0.0


def notes_on(tally: Tally, load: Load) -> list[str]:
    """Sentences for the reader of the numbers; none when they are what they seem."""
    notes = []
    if tally.stopped_because:
        notes.append(f"stopped after {tally.sent_for_s:.1f} s: {tally.stopped_because}")
    notes += _on_the_answers(tally) if load.arrivals is None else _on_the_plan(tally, load)
    if tally.failed and tally.ok:
        notes.append(
            f"latencies are those of the {tally.ok:,} answers with status 2xx; {tally.failed:,} requests failed"
        )
    return notes


def _on_the_answers(tally: Tally) -> list[str]:
    delay_s, latency_s = tally.own_delay.percentile_s(50), tally.latency.percentile_s(50)
    if not is_busy(delay_s, of_s=latency_s):
        return []
    text = (
        f"the sender itself was busy: it got to answers {1000 * delay_s:.2f} ms late at the median, which the latencies"
    )
    return [f"{text} count (p50 {1000 * latency_s:.2f} ms); the rate may be its own limit: try more --processes"]


def _on_the_plan(tally: Tally, load: Load) -> list[str]:
    notes = []
    if tally.unsent > _MOST_UNSENT_RATIO * tally.planned:
        notes.append(
            f"COULD NOT KEEP THE RATE: {tally.unsent:,} of {tally.planned:,} planned requests had not left when the "
            "run ended, and no percentile counts them; ask for less, or for more --processes"
        )
    delay_s, latency_s = tally.own_delay.percentile_s(99), tally.latency.percentile_s(99)
    if is_much(delay_s, of_s=latency_s):
        notes.append(
            f"the sender itself was late: its own delay has a p99 of {1000 * delay_s:.1f} ms, and the latencies above "
            f"(p99 {1000 * latency_s:.1f} ms) count it; they are the server's and the sender's together"
        )
    wait_s = tally.connection_wait.percentile_s(99)
    if is_much(wait_s, of_s=latency_s):
        notes.append(
            f"requests waited for a free connection, p99 {1000 * wait_s:.1f} ms, which the latencies count: "
            f"at most {load.most_connections:,} connections may be open (--max-connections)"
        )
    return notes
