"""Several runs as a table of text: a line a run, and below it what must be known of them."""

import textwrap
from collections.abc import Iterator, Sequence

from redserve.bench.result import Run, Sweep
from redserve.bench.sweep import per_s
from redserve.bench.verdict import is_busy, is_much

_WIDTH = 100


def ms(seconds: float) -> str:
    """Like `1.23 ms`: three digits."""
    value = 1000 * seconds
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f} ms"


def ms_signed(seconds: float) -> str:
    """Like `+1.23 ms`."""
    return ("-" if seconds < 0 else "+") + ms(abs(seconds))


def entry(name: str, text: str) -> Iterator[str]:
    """A sentence under its name, folded."""
    for number, line in enumerate(textwrap.wrap(text, _WIDTH)):
        yield f"  {name if not number else '':<11}{line}"


def failure_lines(runs: Sequence[Run]) -> Iterator[str]:
    """Failures by reason, over all runs, each with what one of them was told."""
    examples = {failure.reason: failure.example for run in reversed(runs) for failure in run.client.failures}
    for reason, example in examples.items():
        count = sum(failure.count for run in runs for failure in run.client.failures if failure.reason == reason)
        yield from entry("failed", f"{count:,} x {reason}: {' '.join(example.split())[:300]}")


def run_lines(runs: Sequence[Run]) -> Iterator[str]:
    """Rounds, in the order they were made."""
    yield from _table([(f"{number}", run, "") for number, run in enumerate(runs, 1)], name="run")


def sweep_lines(sweep: Sweep, runs: Sequence[Run]) -> Iterator[str]:
    """Rates, in their order, and the knee."""
    steps = sorted(sweep.steps, key=lambda step: step.rate_per_s)
    labelled = [(per_s(step.rate_per_s), runs[step.run], "ok" if step.is_within_slo else "broken") for step in steps]
    yield from _table(labelled, name="rate")
    yield ""
    knee = "none" if sweep.knee_per_s is None else per_s(sweep.knee_per_s)
    share = f"{100 * sweep.share:g} %"
    text = f"{knee}: the highest rate at which {share} of all requests are answered within {ms(sweep.slo_s)}"
    yield from entry("knee", f"{text}; {sweep.ended_because}")


def _table(labelled: Sequence[tuple[str, Run, str]], *, name: str) -> Iterator[str]:
    yield f"  {name:>10}{'ok':>11}{'failed':>9}{'p50':>11}{'p99':>11}{'within SLO':>12}{'server p99':>13}{'batch':>7}"
    for label, run, verdict in labelled:
        yield f"  {label:>10}{_row(run)}   {verdict}".rstrip()
    for label, run, _ in labelled:
        if run.server is not None and run.server.mismatch:
            yield from entry("MISMATCH", f"{name} {label}: {run.server.mismatch}")
    late = [label for label, run, _ in labelled if not run.kept_rate]
    if late:
        text = "the sender could not keep the rate, or was late itself, so the latencies are in part its own: "
        yield from entry("note", f"{text}{name} {', '.join(late)}")
    closed = [(label, run.client) for label, run, _ in labelled if run.client.loop == "closed"]
    busy = [label for label, each in closed if is_busy(each.own_delay.p50_s, of_s=each.latency.p50_s)]
    if busy:
        text = "the sender itself was busy, which the latencies count, and the rate may be its own limit: "
        yield from entry("note", f"{text}{name} {', '.join(busy)}")
    waited = [
        label for label, run, _ in labelled if is_much(run.client.connection_wait.p99_s, of_s=run.client.latency.p99_s)
    ]
    if waited:
        text = "requests waited for a free connection, which the latencies count (--max-connections): "
        yield from entry("note", f"{text}{name} {', '.join(waited)}")
    for label, run, _ in labelled:
        if run.stopped_because:
            yield from entry("note", f"{name} {label}: stopped after {run.client.seconds:.1f} s: {run.stopped_because}")
    yield from failure_lines([run for _, run, _ in labelled])
    for note in dict.fromkeys(run.server_note for _, run, _ in labelled if run.server_note):
        yield from entry("server", note)


def _row(run: Run) -> str:
    client, server = run.client, run.server
    kept = "-" if client.within_slo_ratio is None else f"{100 * client.within_slo_ratio:.2f} %"
    beside = f"{ms(server.latency.p99_s):>13}{server.mean_batch_rows:>7.1f}" if server else f"{'-':>13}{'-':>7}"
    return (
        f"{client.ok_per_s:>9,.0f}/s{client.failed + client.unsent:>9,}{ms(client.latency.p50_s):>11}"
        f"{ms(client.latency.p99_s):>11}{kept:>12}{beside}"
    )
