"""A result as text, for a terminal."""

from collections.abc import Iterator

from redserve.bench.result import Client, Result, Run, ServerTimes, Setup, Times
from redserve.bench.run_table import entry, failure_lines, ms, ms_signed, run_lines, sweep_lines


def summarise(result: Result) -> str:
    """All that must be known, in a screenful."""
    if result.sweep is not None:
        lines = sweep_lines(result.sweep, result.runs)
    elif len(result.runs) > 1:
        lines = run_lines(result.runs)
    else:
        lines = _run(result.runs[0], result.setup)
    return "\n".join(("", heading(result.setup), "", *lines)) + "\n"


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
        connections = f"{setup.connections:,} connection{'s' * (setup.connections != 1)}"
        return f"closed loop, {connections} (each asks again when it is answered)"
    return f"open loop, {setup.arrivals} (latency counts from the planned time)"


def _run(run: Run, setup: Setup) -> Iterator[str]:
    client = run.client
    rows = f"   {client.rows_per_s:,.0f} rows/s" if setup.rows > 1 else ""
    asked = f" of {client.planned / client.seconds:,.0f}/s planned" if client.loop == "open" and client.seconds else ""
    yield f"  requests   {client.ok:,} ok   {client.failed:,} failed   in {client.seconds:.1f} s"
    yield f"  rate       {client.ok_per_s:,.0f}/s ok{asked}{rows}"
    yield f"             {'p50':>10}{'p90':>11}{'p95':>11}{'p99':>11}{'p99.9':>11}{'max':>11}"
    yield f"  latency  {_columns(client.latency)}"
    what = "part of it, not the server's doing" if client.loop == "open" else "of the sender to an answer, sampled"
    yield f"  own delay{_columns(client.own_delay)}   ({what})"
    if client.failed_latency.count:
        yield f"  failures {_columns(client.failed_latency)}"
    if client.within_slo_ratio is not None and setup.slo_s is not None:
        yield f"  SLO        {100 * client.within_slo_ratio:.2f} % of all requests answered within {ms(setup.slo_s)}"
    yield from _server(run)
    yield from failure_lines([run])
    for note in run.notes:
        yield from entry("note", note)


def _columns(times: Times) -> str:
    values = (times.p50_s, times.p90_s, times.p95_s, times.p99_s, times.p999_s, times.max_s)
    return "".join(f"{ms(value):>11}" for value in values)


def _server(run: Run) -> Iterator[str]:
    server = run.server
    if server is None:
        if run.server_note:
            yield from entry("server", run.server_note)
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
        yield from entry("MISMATCH", server.mismatch)
    else:
        yield f"  truth      the server counted the same {counted:,.0f} requests"


def _finest(run: Run) -> str:
    finest_s = run.server.finest_s if run.server else 0.0
    return f"; finest bucket {ms(finest_s)}" if finest_s and run.client.latency.p50_s < 4 * finest_s else ""


def _apart(client: Client, server: ServerTimes) -> str:
    pairs = ((client.latency.p50_s, server.p50_s), None, (client.latency.p95_s, server.p95_s))
    cells = [*pairs, (client.latency.p99_s, server.p99_s)]
    return "".join(f"{'' if pair is None else ms_signed(pair[0] - pair[1]):>11}" for pair in cells)
