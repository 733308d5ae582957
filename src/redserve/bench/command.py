"""`redserve bench`: from options to numbers, text, JSON and HTML."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from redserve.bench import options as of
from redserve.bench.arrivals import Arrivals
from redserve.bench.compare import compare, describe
from redserve.bench.environment import environment
from redserve.bench.load import Load
from redserve.bench.measure import measure
from redserve.bench.mistakes import BenchError
from redserve.bench.prepare import Prepared, prepare
from redserve.bench.progress import Reporter, reporter_for
from redserve.bench.result import SCHEMA, Result, Run, Setup, Step, Sweep
from redserve.bench.summary import summarise
from redserve.bench.sweep import SweepPlan
from redserve.bench.truth import Witness
from redserve.bench.verdict import kept_rate

FIRST_RATE_PER_S = 100.0
SHARE = 0.99
_INTERRUPTED = 130


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    try:
        if options.compare:
            a, b = (Result.read(path) for path in options.compare)
            print(describe(compare(a, b), a, b), end="")
            return 0
        if options.url is None:
            raise ValueError("name a URL (or --compare A.json B.json)")
        if options.sweep and (options.against or options.slo_ms is None):
            raise ValueError("--sweep needs --slo-ms, and one URL")
        of.check(options)
        results = _measure_all(options)
    except ValueError as error:
        print(f"redserve bench: {error}", file=sys.stderr)
        return 2
    except BenchError as error:
        print(f"redserve bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("redserve bench: interrupted before anything was measured", file=sys.stderr)
        return _INTERRUPTED
    return _tell(options, results)


def _measure_all(options: argparse.Namespace) -> list[Result]:
    """A result for the URL, and one for that of `--against`."""
    arrivals, words = of.arrivals_of(options)
    urls = [options.url, *([options.against] if options.against else [])]
    prepared = [prepare(of.ask_of(options, url)) for url in urls]
    reporter = reporter_for(sys.stderr)
    try:
        if options.sweep:
            runs, sweep = _sweep(options, prepared[0], reporter)
            words = f"{options.arrivals}, swept"
            return [_result(options, prepared[0], runs, sweep, words=words)]
        made = _in_turns(options, prepared, arrivals, reporter)
        pairs = zip(prepared, made, strict=True)
        return [_result(options, one, runs, None, words=words) for one, runs in pairs if runs]
    finally:
        reporter.close()


def _in_turns(
    options: argparse.Namespace, prepared: Sequence[Prepared], arrivals: Arrivals | None, reporter: Reporter
) -> list[list[Run]]:
    """A, B, A, B: the runs of each, until all rounds are made or one was stopped."""
    made: list[list[Run]] = [[] for _ in prepared]
    for number in range(options.rounds * len(prepared)):
        turn = number % len(prepared)
        made[turn].append(_one_run(options, prepared[turn], arrivals, reporter)[0])
        if made[turn][-1].stopped_because:
            break
    return made


def _sweep(options: argparse.Namespace, prepared: Prepared, reporter: Reporter) -> tuple[list[Run], Sweep]:
    slo_s = of.slo_s_of(options) or 0.0
    plan = SweepPlan(options.rate or FIRST_RATE_PER_S)
    runs: list[Run] = []
    steps: list[Step] = []
    while (rate_per_s := plan.next_rate_per_s()) is not None:
        run, kept = _one_run(options, prepared, of.arrivals_at(rate_per_s, options), reporter)
        is_within_slo = (run.client.within_slo_ratio or 0.0) >= SHARE
        runs.append(run)
        steps.append(Step(rate_per_s=rate_per_s, run=len(runs) - 1, is_within_slo=is_within_slo))
        if run.stopped_because == "interrupted":
            plan.give_up("it was interrupted")
        else:
            plan.tell(is_within_slo=is_within_slo, kept_rate=kept)
    return runs, Sweep(
        slo_s=slo_s, share=SHARE, steps=steps, knee_per_s=plan.knee_per_s, ended_because=plan.ended_because
    )


def _one_run(
    options: argparse.Namespace, prepared: Prepared, arrivals: Arrivals | None, reporter: Reporter
) -> tuple[Run, bool]:
    slo_s = of.slo_s_of(options)
    run, tally = measure(
        _load(options, prepared, arrivals),
        processes=options.processes,
        warm_up_s=options.warm_up_s,
        rows=prepared.rows,
        slo_s=slo_s,
        witness=Witness(prepared.server, options.metrics_path, must_count=prepared.target is not None),
        reporter=reporter,
    )
    return run, kept_rate(tally, limit_s=slo_s)


def _load(options: argparse.Namespace, prepared: Prepared, arrivals: Arrivals | None) -> Load:
    server = prepared.server
    return of.load_of(options, arrivals, host=server.host, port=server.port, requests=prepared.requests, tls=server.tls)


def _result(
    options: argparse.Namespace, prepared: Prepared, runs: Sequence[Run], sweep: Sweep | None, *, words: str
) -> Result:
    load = _load(options, prepared, None)
    target = prepared.target
    setup = Setup(
        url=prepared.server.url + prepared.path,
        server="" if target is None else f"{target.server_name} {target.server_version}".strip(),
        model="" if target is None else target.model,
        format=prepared.form,
        rows=prepared.rows,
        loop=runs[0].client.loop,
        arrivals=words,
        connections=load.connections,
        max_connections=load.max_connections if words else load.connections,
        processes=options.processes,
        duration_s=load.duration_s,
        warm_up_s=options.warm_up_s,
        timeout_s=load.timeout_s,
        deadline_s=of.deadline_s_of(options),
        slo_s=of.slo_s_of(options),
        distinct_requests=len(prepared.requests),
        request_bytes=sum(map(len, prepared.requests)) // len(prepared.requests),
    )
    command = shlex.join(["redserve", *sys.argv[1:]])
    return Result(schema=SCHEMA, command=command, setup=setup, environment=environment(), runs=runs, sweep=sweep)


def _tell(options: argparse.Namespace, results: Sequence[Result]) -> int:
    for result in results:
        print(summarise(result), end="")
    if len(results) == 2:
        print(describe(compare(*results), *results), end="")
    status = max(map(_status, results))
    try:
        for result, ending in zip(results, ("", ".against"), strict=False):
            if options.json:
                result.write(_with(options.json, ending))
            if options.html:
                from redserve.bench.report import write_report  # matplotlib takes half a second

                write_report(result, _with(options.html, ending))
    except BenchError as error:
        print(f"redserve bench: {error}", file=sys.stderr)
        return 1
    return status


def _with(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.stem}{ending}{path.suffix}")


def _status(result: Result) -> int:
    if any(run.stopped_because == "interrupted" for run in result.runs):
        return _INTERRUPTED
    if any(run.server is not None and run.server.mismatch for run in result.runs):
        return 1
    if result.sweep is not None:
        return int(result.sweep.knee_per_s is None)
    return int(any(run.stopped_because or not run.client.ok for run in result.runs))
