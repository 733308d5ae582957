"""A result as text, for a terminal."""

import textwrap
from collections.abc import Iterator

from redserve.bench.result import Client, Result, Run, ServerTimes, Setup, Times

_WIDTH = 100


def summarise(result: Result) -> str:
    """All that must be known, in a screenful."""
    lines = ["", heading(result.setup)]
    if result.sweep is not None:
        lines += _sweep(result)
    elif len(result.runs) == 1:
        lines += _run(result.runs[0], result.setup)
    else:
        for number, run in enumerate(result.runs, 1):
            lines += ["", f"  run {number} of {len(result.runs)}", *_run(run, result.setup)]
    return "\n".join(lines) + "\n"


def heading(setup: Setup) -> str:
    """What was asked for, and which loop it is."""
    model = f" · model {setup.model}" if setup.model else ""
    server = f" · {setup.server}" if setup.server else ""
    rows = f", {setup.rows} row{'s' * (setup.rows != 1)} a request" if setup.rows else ""
    processes = f" from {setup.processes} processes" if setup.processes > 1 else ""
    deadline = f" · deadline {ms(setup.deadline_s)}" if setup.deadline_s else ""
    return "\n".join(
        (
            f"redserve bench · {loop_of(setup)}{processes}",
            f"  {setup.url}{server}{model} · {setup.format}{rows}{deadline}",
        )
    )


def loop_of(setup: Setup) -> str:
    """The loop, and what its latencies mean."""
    if setup.loop == "closed":
        return f"closed loop, {setup.connections} connections (each asks again when it is answered)"
    return f"open loop, {setup.arrivals} (latency counts from the planned time)"


def ms(seconds: float) -> str:
    """Like `1.23 ms`: three digits."""
    value = 1000 * seconds
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f} ms"


def _run(run: Run, setup: Setup) -> Iterator[str]:
    client = run.client
    rows = f"   {client.rows_per_s:,.0f} rows/s" if setup.rows > 1 else ""
    asked = f" of {client.planned / client.seconds:,.0f}/s planned" if client.loop == "open" and client.seconds else ""
    yield ""
    yield f"  requests   {client.ok:,} ok   {client.failed:,} failed   in {client.seconds:.1f} s"
    yield f"  rate       {client.ok_per_s:,.0f}/s ok{asked}{rows}"
    yield f"             {'p50':>10}{'p90':>11}{'p95':>11}{'p99':>11}{'p99.9':>11}{'max':>11}"
    yield f"  latency  {_columns(client.latency)}"
    if client.loop == "open":
        yield f"  own delay{_columns(client.own_delay)}   (part of it, not the server's doing)"
    if client.failed_latency.count:
        yield f"  failures {_columns(client.failed_latency)}"
    if client.within_slo_ratio is not None and setup.slo_s is not None:
        yield f"  SLO        {100 * client.within_slo_ratio:.2f} % of all requests answered within {ms(setup.slo_s)}"
    yield from _server(run)
    for failure in client.failures:
        yield from _entry("failed", f"{failure.count:,} x {failure.reason}: {' '.join(failure.example.split())[:300]}")
    for note in run.notes:
        yield from _entry("note", note)


def _entry(name: str, text: str) -> Iterator[str]:
    """Folded, since a sentence may be long."""
    for number, line in enumerate(textwrap.wrap(text, _WIDTH)):
        yield f"  {name if not number else '':<11}{line}"


def _columns(times: Times) -> str:
    values = (times.p50_s, times.p90_s, times.p95_s, times.p99_s, times.p999_s, times.max_s)
    return "".join(f"{ms(value):>11}" for value in values)


def _server(run: Run) -> Iterator[str]:
    server = run.server
    if server is None:
        if run.server_note:
            yield from _entry("server", run.server_note)
        return

    def of_server(times: ServerTimes) -> str:
        cells = (times.p50_s, None, times.p95_s, times.p99_s)
        return "".join(f"{'' if value is None else ms(value):>11}" for value in cells)

    yield f"  server   {of_server(server.latency)}   (/metrics: to its last byte{_finest(run)})"
    yield f"  apart    {_apart(run.client, server.latency)}   (latency above minus the server's)"
    if server.queue_wait.count:
        yield f"  queued   {of_server(server.queue_wait)}"
        yield f"  a run    {of_server(server.compute)}   {server.mean_batch_rows:.1f} rows on average"
    counted = sum(server.ended.values())
    if server.mismatch:
        yield from _entry("MISMATCH", server.mismatch)
    else:
        yield f"  truth      the server counted the same {counted:,.0f} requests"


def _finest(run: Run) -> str:
    finest_s = run.server.finest_s if run.server else 0.0
    return f"; finest bucket {ms(finest_s)}" if finest_s and run.client.latency.p50_s < 4 * finest_s else ""


def _apart(client: Client, server: ServerTimes) -> str:
    pairs = ((client.latency.p50_s, server.p50_s), None, (client.latency.p95_s, server.p95_s))
    cells = [*pairs, (client.latency.p99_s, server.p99_s)]
    return "".join(f"{'' if pair is None else ms_signed(pair[0] - pair[1]):>11}" for pair in cells)


def ms_signed(seconds: float) -> str:
    """Like `+1.23 ms`."""
    return ("-" if seconds < 0 else "+") + ms(abs(seconds))


def _sweep(result: Result) -> Iterator[str]:
    sweep = result.sweep
    if sweep is None:
        return
    yield ""
    yield f"  {'rate':>9}{'ok':>11}{'p50':>11}{'p99':>11}{'within SLO':>13}   server p99   batch"
    for step in sorted(sweep.steps, key=lambda step: step.rate_per_s):
        run = result.runs[step.run]
        client, server = run.client, run.server
        kept = 100 * (client.within_slo_ratio or 0.0)
        beside = f"{ms(server.latency.p99_s):>13}{server.mean_batch_rows:>8.1f}" if server else f"{'-':>13}{'-':>8}"
        yield (
            f"  {step.rate_per_s:>7,.0f}/s{client.ok_per_s:>9,.0f}/s{ms(client.latency.p50_s):>11}"
            f"{ms(client.latency.p99_s):>11}{kept:>11.2f} %{beside}   {'ok' if step.is_within_slo else 'broken'}"
        )
    for run in result.runs:
        if run.server is not None and run.server.mismatch:
            yield from _entry("MISMATCH", f"at {run.rate_per_s or 0:,.0f}/s: {run.server.mismatch}")
    late = [run for run in result.runs if any("sender itself" in note or "RATE" in note for note in run.notes)]
    if late:
        rates = ", ".join(f"{run.rate_per_s or 0:,.0f}/s" for run in late)
        yield from _entry("note", f"the sender itself was late at {rates}: there the latencies are in part its own")
    yield ""
    knee = "none" if sweep.knee_per_s is None else f"{sweep.knee_per_s:,.0f}/s"
    share = f"{100 * sweep.share:g} %"
    text = f"{knee}: the highest rate at which {share} of all requests are answered within {ms(sweep.slo_s)}"
    yield from _entry("knee", f"{text}; {sweep.ended_because}")
