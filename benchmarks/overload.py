"""What is left of the server when more is asked of it than it can do? Policies side by side, open loop, over HTTP.

    python benchmarks/overload.py [--quick] [--rounds 3] [--seconds 8] [--only sleeping|onnx]
                                                  needs redserve[dev]; writes benchmarks/results/overload.json

At 0.5 to 5 times the capacity Poisson arrivals of one row each leave by the clock (`load/open_loop.py`), from a process
of their own, to a real server a policy; within a round the policies take turns. Goodput is what was answered, rightly,
within the SLO of its planned time, as a part of the capacity. Every answer is compared, every refusal must say when to
come again, and after each cell the server's counters must agree with what the client saw. `others` is how many cores
the machine's other processes kept busy meanwhile: a cell that had to share says little.

Two models: one that sleeps (its capacity is known, and the CPU is left to everything else), and an ONNX model on one
thread (its capacity is measured by a closed loop through the same server). That the sender can send what it claims is
shown first, against a server that does nothing.
"""

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvloop
from load.cell import median_of, percentile_ms, summarise
from load.fleet import Fleet, check_counters
from load.open_loop import OpenLoop, poisson
from load.sleeping_server import MAX_BATCH_SIZE
from load.watched import machine_cpu_s
from load.workloads import Workload, heavy, sleeping

RESULTS = Path(__file__).parent / "results" / "overload.json"
PACKAGES = ["redserve", "fastapi", "httptools", "numpy", "onnxruntime", "prometheus_client", "uvicorn", "uvloop"]
SLO_S = 0.150
LOADS = (0.5, 0.7, 1.0, 1.2, 2.0, 5.0)
PATIENCE_S = 1.0
PROVEN_PER_S = 3000.0
LANES = 64
"""Connections to begin with."""

NO_BOUNDS = (
    "--max-queue-rows 1000000000 --max-queue-mib 65536 --max-connections 1000000 "
    "--request-timeout-ms 3600000 --max-request-timeout-ms 3600000"
)


def policies(capacity_per_s: float) -> dict[str, tuple[str, str]]:
    """The server's settings, and the headers of its clients, by policy."""
    budget_ms = round(1000 * SLO_S)
    # what waits may take the SLO, less the batch that runs and its own
    rows = max(int(SLO_S * capacity_per_s) - 2 * MAX_BATCH_SIZE, 1)
    return {
        "unbounded FIFO": (NO_BOUNDS, ""),
        "default, 1024 rows": ("", ""),
        f"cap by hand, {rows} rows": (f"--max-queue-rows {rows}", ""),
        "default, clients name a budget": ("", f"X-Request-Timeout-Ms: {budget_ms}\r\n"),
        f"--slo-ms {budget_ms}": (f"--slo-ms {budget_ms}", ""),
    }


def prove_sender(rate_per_s: float, *, seconds: float) -> dict[str, Any]:
    """Send to a server that does nothing."""
    program = [sys.executable, str(Path(__file__).parent / "load" / "bare_server.py")]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            port = int(server.stdout.readline())
            sender = OpenLoop(port, sleeping().request())
            plan = poisson(rate_per_s, seconds, seed=0)
            exchanges = uvloop.run(sender.drive(plan, patience_s=PATIENCE_S, lanes=LANES))
        finally:
            server.terminate()
    if any(exchange.status != 200 for exchange in exchanges):
        raise RuntimeError("the bare server did not answer everything")
    late_s = [exchange.sent_s - exchange.planned_s for exchange in exchanges]
    return {
        "planned_per_s": round(rate_per_s, 1),
        "sent_per_s": round(len(exchanges) / max(exchange.sent_s for exchange in exchanges), 1),
        "late_p50_ms": percentile_ms(late_s, 50),
        "late_p99_ms": percentile_ms(late_s, 99),
        "latency_p50_ms": percentile_ms([exchange.latency_s for exchange in exchanges], 50),
        "latency_p99_ms": percentile_ms([exchange.latency_s for exchange in exchanges], 99),
    }


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is measured.

    Attributes:
        loads: As multiples of the capacity.
        rounds: Of each cell.
        seconds: Of each round of a cell; the first eighth is not counted.
        patience_s: How long the clients wait for the last answers.
    """

    loads: Sequence[float]
    rounds: int
    seconds: float
    patience_s: float


QUICK = Extent(loads=(2.0,), rounds=1, seconds=0.8, patience_s=0.2)


def run_cell(
    fleet: Fleet, name: str, headers: str, extent: Extent, *, load: float, capacity_per_s: float, seed: int
) -> dict[str, Any]:
    """One policy at one load, once."""
    before = fleet.settle(name)
    sender = OpenLoop(fleet.port(name), fleet.workload.request(headers))
    plan = poisson(load * capacity_per_s, extent.seconds, seed=seed)
    gc.collect()
    gc.disable()
    began_s, server_s, own_s, all_s = time.monotonic(), fleet.cpu_s(name), time.process_time(), machine_cpu_s()
    exchanges = uvloop.run(sender.drive(plan, patience_s=extent.patience_s, lanes=LANES))
    server_s, own_s, all_s = fleet.cpu_s(name) - server_s, time.process_time() - own_s, machine_cpu_s() - all_s
    took_s = time.monotonic() - began_s
    gc.enable()
    after = fleet.settle(name)
    check_counters(before, after, [exchange.status for exchange in exchanges])
    found = summarise(
        exchanges,
        fleet.workload.is_right,
        slo_s=SLO_S,
        capacity_per_s=capacity_per_s,
        window_s=(extent.seconds / 8, extent.seconds),
    )
    runs = after.runs - before.runs
    return found | {
        "cpu_us_per_request": round(1e6 * server_s / len(plan), 1),
        "neighbours_cores": round(max(all_s - server_s - own_s, 0) / took_s, 2),
        "run_mean_rows": round((after.run_rows - before.run_rows) / runs, 2),
        "run_mean_ms": round(1000 * (after.run_s - before.run_s) / runs, 2),
        "late_answers_as_the_server_counts": after.missed - before.missed,
    }


def compare(workload: Workload, extent: Extent) -> dict[str, Any]:
    """All cells of one workload."""
    with ExitStack() as stack:
        fleet = Fleet(stack, workload)
        measured = []
        if extent is not QUICK:
            fleet.start({"measured": ""}, at_once=False)
            measured.append(fleet.capacity_per_s("measured", seconds=extent.seconds))
        capacity_per_s = workload.capacity_per_s or measured[0]
        asked = policies(capacity_per_s)
        fleet.start({name: settings for name, (settings, _) in asked.items()}, at_once=extent is QUICK)
        print(f"\n{workload.name}: {workload.model}; capacity {capacity_per_s:.0f} rows/s, SLO {1000 * SLO_S:g} ms")
        print(HEADER)
        cells = []
        for load in extent.loads:
            taken: dict[str, list[dict[str, Any]]] = {name: [] for name in asked}
            for seed in range(extent.rounds):
                for name, (_, headers) in asked.items():
                    cell = run_cell(fleet, name, headers, extent, load=load, capacity_per_s=capacity_per_s, seed=seed)
                    taken[name].append(cell)
            for name, found in taken.items():
                cells.append({"load": load, "policy": name, "median": median_of(found), "rounds": found})
                print(line_of(cells[-1]), flush=True)
        if extent is not QUICK:
            measured.append(fleet.capacity_per_s("measured", seconds=extent.seconds))
            print(f"by a closed loop, rows/s, before and after: {measured}")
        fleet.stop()
    return {
        "model": workload.model,
        "slo_ms": 1000 * SLO_S,
        "capacity_per_s": round(capacity_per_s, 1),
        "closed_loop_per_s_before_and_after": [round(rate, 1) for rate in measured],
        "policies": {name: {"settings": settings, "headers": sent.strip()} for name, (settings, sent) in asked.items()},
        "cells": cells,
    }


HEADER = (
    " load  policy                            goodput   admitted p50    p99    refused p50    p99"
    "   a run: rows    ms    CPU us  others  late p99  statuses"
)


def line_of(cell: dict[str, Any]) -> str:
    """A line of the table; times in ms."""

    def ms(key: str, width: int) -> str:
        value = cell["median"][key]
        return f"{'-' if value is None else f'{value:.1f}':>{width}}"

    found = cell["median"]
    statuses = "  ".join(f"{status}: {count}" for status, count in found["statuses"].items())
    return (
        f"{cell['load']:>4g}x  {cell['policy']:<31}{found['goodput_percent']:>8.1f} %"
        f"{ms('admitted_p50_ms', 15)}{ms('admitted_p99_ms', 7)}{ms('refused_p50_ms', 15)}{ms('refused_p99_ms', 7)}"
        f"{found['run_mean_rows']:>15.1f}{ms('run_mean_ms', 6)}{found['cpu_us_per_request']:>10.0f}"
        f"{found['neighbours_cores']:>8.2f}"
        f"{ms('sender_late_p99_ms', 8)}{'!' if found['is_sender_late'] else ' '}  {statuses}"
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short cell a policy; write nothing")
    parser.add_argument("--rounds", type=int, default=3, help="of each cell (default: 3)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each cell (default: 8)")
    parser.add_argument("--only", choices=("sleeping", "onnx"), help="one of the models; keep the other as it is")
    options = parser.parse_args()
    proof = prove_sender(PROVEN_PER_S, seconds=0.5 if options.quick else 8.0)
    print(f"the sender against a server that does nothing: {proof}")
    if options.quick:
        compare(sleeping(), QUICK)
        return
    extent = Extent(loads=LOADS, rounds=options.rounds, seconds=options.seconds, patience_s=PATIENCE_S)
    makers: dict[str, Callable[[Path], Workload]] = {"sleeping": lambda _: sleeping(), "onnx": heavy}
    document = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"workloads": {}}
    document["question"] = "what is left of the server when more is asked of it than it can do?"
    with tempfile.TemporaryDirectory() as folder:
        for name in makers if options.only is None else (options.only,):
            document["workloads"][name] = {
                "command": f"python benchmarks/overload.py --rounds {extent.rounds} --seconds {extent.seconds:g}",
                "python": platform.python_version(),
                "machine": {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()},
                "versions": {package: version(package) for package in PACKAGES},
                "sender": proof,
                **compare(makers[name](Path(folder)), extent),
            }
            RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
