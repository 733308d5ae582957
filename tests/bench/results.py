"""Results for tests, as the load tester makes them."""

from collections import Counter
from typing import Any

from redserve.bench.arrivals import Constant
from redserve.bench.histogram import Histogram
from redserve.bench.load import Load
from redserve.bench.measure import client_side
from redserve.bench.result import SCHEMA, BatchSizes, Result, Run, ServerSide, ServerTimes, Setup, Step, Sweep
from redserve.bench.tally import Slot, Tally

TIMES = ServerTimes(count=900.0, mean_s=0.004, p50_s=0.003, p95_s=0.006, p99_s=0.009)


def tally_of(*, p50_ms: float = 4.0, ok: int = 900, failed: int = 0, seconds: float = 9.0) -> Tally:
    """A run whose latencies lie between p50 and ten times as much."""
    slots = []
    each = ok // round(seconds)
    for number in range(round(seconds)):
        us = Counter(round(1000 * p50_ms * (1 + 9 * (step / each) ** 8)) for step in range(each))
        slots.append(Slot(Histogram.of(us), failed // round(seconds) if number else failed % round(seconds)))
    latency = Histogram()
    for slot in slots:
        latency.add(slot.latency)
    return Tally(
        slots=slots,
        latency=latency,
        own_delay=Histogram.of({30: len(latency)}),
        statuses=Counter({200: len(latency), 503: failed}),
        failures=Counter({"503 queue_full": failed}) if failed else Counter(),
        examples={"503 queue_full": '{"error":{"reason":"queue_full","message":"1024 rows already wait"}}'},
        in_time=len(latency),
        sent_for_s=seconds,
    )


def run_of(
    tally: Tally | None = None,
    *,
    at: int = 0,
    rate_per_s: float | None = None,
    mismatch: str = "",
    slo_s: float | None = None,
    server: bool = True,
    notes: tuple[str, ...] = (),
) -> Run:
    """The `at`-th second of an hour."""
    arrivals = None if rate_per_s is None else Constant(rate_per_s)
    load = Load(host="h", port=1, requests=[b"x"], arrivals=arrivals)
    side = ServerSide(
        ended={"200": 900.0},
        latency=TIMES,
        finest_s=0.0005,
        queue_wait=TIMES,
        compute=TIMES,
        mean_batch_rows=5.5,
        batch_sizes=[
            BatchSizes(at_most_rows=1.0, runs=20.0),
            BatchSizes(at_most_rows=8.0, runs=120.0),
            BatchSizes(at_most_rows=None, runs=3.0),
        ],
        mismatch=mismatch,
    )
    return Run(
        started_at=f"2026-11-28T12:{at // 60:02}:{at % 60:02}.000+00:00",
        rate_per_s=rate_per_s,
        client=client_side(tally or tally_of(), load, rows=1, slo_s=slo_s),
        server=side if server else None,
        server_note="" if server else "/metrics has no metrics of redserve (404): no truth check",
        notes=notes,
        stopped_because="",
    )


def result_of(*runs: Run, sweep: Sweep | None = None, **setup: Any) -> Result:
    """Of these runs."""
    loop = runs[0].client.loop
    asked = {
        "url": "http://127.0.0.1:8000/predict/digits",
        "server": "redserve 0.1.0",
        "model": "digits",
        "format": "predict",
        "rows": 1,
        "loop": loop,
        "arrivals": "" if loop == "closed" else "constant at 100/s",
        "connections": 64,
        "max_connections": 64,
        "processes": 1,
        "duration_s": 9.0,
        "warm_up_s": 2.0,
        "timeout_s": 30.0,
        "deadline_s": None,
        "slo_s": None,
        "distinct_requests": 64,
        "request_bytes": 400,
    }
    return Result(
        schema=SCHEMA,
        command="redserve bench http://127.0.0.1:8000",
        setup=Setup(**(asked | setup)),
        environment={"machine": "a machine, 2 cores", "redserve": "0.1.0"},
        runs=runs,
        sweep=sweep,
    )


def swept() -> Result:
    """A sweep with its knee at 400/s."""
    rates = (100.0, 200.0, 400.0, 800.0)
    runs = [
        run_of(tally_of(p50_ms=2 if rate < 500 else 60), at=number, rate_per_s=rate, slo_s=0.05)
        for number, rate in enumerate(rates)
    ]
    steps = [Step(rate_per_s=rate, run=number, is_within_slo=rate < 500) for number, rate in enumerate(rates)]
    sweep = Sweep(slo_s=0.05, share=0.99, steps=steps, knee_per_s=400.0, ended_because="the SLO breaks at 800/s")
    return result_of(*runs, sweep=sweep, arrivals="constant, swept", slo_s=0.05)
