"""What does it gain to start a batch a moment later, and what does it cost?

    python benchmarks/patience.py [--quick] [--rounds 5] [--seconds 2]
                          needs the dev extra; the driver of the closed loop is wrk where it is installed;
                          writes benchmarks/results/patience.json

Two `redserve serve` of a perceptron, as it is served by default, take turns: one is patient, the other starts a batch
at once. The wide one, with both cores for a run, waits until its loop is quiet; the small one, which runs on the loop,
lets others that wait for its core run first: as one process, as two, and as one beside a busy process for each core,
which has nothing to do with it. Closed loops, and Poisson arrivals at a rate by redserve's own sender, latency from the
planned time. Each server's answers are compared with ONNX Runtime's first. Ratios are of neighbours in time, and their
medians.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).parent / "peers"))

import drivers
from workload import Workload

from redserve.bench.environment import environment

RESULTS = Path(__file__).parent / "results" / "patience.json"
READY_WITHIN_S = 60.0
AT_ONCE = {
    "until quiet": "import redserve.engine.onnx_runtime as engine; engine._FEW_CORES = 0",
    "gives way": """
from redserve.batching.policy import BatchPolicy
checked = BatchPolicy.__post_init__
BatchPolicy.__post_init__ = lambda self: (checked(self), object.__setattr__(self, "linger", False))[0]
""",
}
"""What the other server runs before anything else, in each of its processes."""


@dataclass(frozen=True)
class Subject:
    """What is served, and what it is asked for."""

    model: str
    patience: str
    connections: tuple[int, ...]
    rates_per_s: tuple[float, ...] = ()
    workers: int = 1
    busy: bool = False


SUBJECTS = (
    Subject("wide", "until quiet", (1, 16, 64, 128), (200.0, 1000.0, 4000.0)),
    Subject("small", "gives way", (1, 4, 16, 64, 256), (1000.0, 10_000.0)),
    Subject("small", "gives way", (1, 4, 16, 64, 256), (1000.0, 10_000.0), workers=2),
    Subject("small", "gives way", (1, 16, 64), (1000.0,), busy=True),
)


def serve(stack: ExitStack, workload: Workload, subject: Subject, *, is_patient: bool) -> int:
    """A server until the stack is left. Returns its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "redserve.cli", "serve", str(workload.model), "--port", str(port)]
    before = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    if not is_patient:
        (before / "sitecustomize.py").write_text(AT_ONCE[subject.patience])
    server = stack.enter_context(
        subprocess.Popen(
            [*command, "--workers", str(subject.workers)],
            stdout=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": str(before)},
        )
    )
    stack.callback(server.terminate)
    wait_until_ready(port)
    workload.check(port)
    return port


def wait_until_ready(port: int) -> None:
    """Ask until it says so.

    Raises:
        RuntimeError: It never does.
    """
    deadline_s = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline_s:
        try:
            with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the server is not ready")


def keep_busy(stack: ExitStack) -> None:
    """A process for each core, until the stack is left."""
    for _ in range(os.cpu_count() or 1):
        busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
        stack.callback(busy.kill)


def compare(
    driver: str, workload: Workload, subject: Subject, *, quick: bool, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """The cells of one subject."""
    loads: list[tuple[int, float | None]] = [
        *((count, None) for count in subject.connections),
        *((64, rate_per_s) for rate_per_s in subject.rates_per_s),
    ]
    cells = []
    with ExitStack() as stack:
        ports = {is_patient: serve(stack, workload, subject, is_patient=is_patient) for is_patient in (False, True)}
        if subject.busy:
            keep_busy(stack)
        for connections, rate_per_s in loads[:1] if quick else loads:
            raw: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
            for number in range(rounds):
                for is_patient in (False, True) if number % 2 == 0 else (True, False):
                    raw[is_patient].append(
                        ask(driver, workload, ports[is_patient], connections, rate_per_s, seconds=seconds)
                    )
            pairs = list(zip(raw[True], raw[False], strict=True))
            ratios = {
                key: [round(patient[key] / at_once[key], 3) for patient, at_once in pairs]
                for key in ("per_s", "p50_ms", "p99_ms")
            }
            cell: dict[str, Any] = {
                "model": subject.model,
                "processes": subject.workers,
                "beside": "busy processes" if subject.busy else "",
                "connections": connections,
                "asked_per_s": rate_per_s or "all they can",
            }
            for name, found in (("at once", raw[False]), ("patient", raw[True])):
                cell |= {f"{name}, {key}": statistics.median(each[key] for each in found) for key in ratios}
            cell |= {f"ratio of {key}": statistics.median(found) for key, found in ratios.items()}
            cells.append(cell | {"ratios": ratios, "raw": {"at once": raw[False], "patient": raw[True]}})
            print(cell, flush=True)
    return cells


def ask(
    driver: str, workload: Workload, port: int, connections: int, rate_per_s: float | None, *, seconds: float
) -> dict[str, Any]:
    """One load."""
    if rate_per_s is None:
        return drivers.closed(driver, workload, port, connections=connections, seconds=seconds)
    found = drivers.open_loop(workload, port, rate_per_s=rate_per_s, connections=connections, seconds=seconds)
    return {key: found[key] for key in ("per_s", "p50_ms", "p99_ms")}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short load of each; write nothing")
    parser.add_argument("--rounds", type=int, default=5, help="of each (default: 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round (default: 2)")
    options = parser.parse_args()
    rounds, seconds = (1, 1.0) if options.quick else (options.rounds, options.seconds)
    driver = drivers.pick(None)
    workloads = {name: Workload.of(name) for name in ("small", "wide")}
    cells = [
        cell
        for subject in SUBJECTS
        for cell in compare(
            driver, workloads[subject.model], subject, quick=options.quick, rounds=rounds, seconds=seconds
        )
    ]
    if options.quick:
        return
    document = {
        "question": (__doc__ or "").partition("\n")[0],
        "command": f"python benchmarks/patience.py --rounds {rounds} --seconds {seconds:g}",
        "machine": environment(),
        "driver": driver,
        "cells": cells,
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
