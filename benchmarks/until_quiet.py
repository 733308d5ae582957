"""What does it gain on few cores to start a batch when the loop is quiet, and what does it cost?

    python benchmarks/until_quiet.py [--quick] [--rounds 5] [--seconds 3]
                          needs the dev extra; the driver of the closed loop is wrk where it is installed;
                          writes benchmarks/results/until_quiet.json

Two `redserve serve` of the wide perceptron, as they are served by default, with both cores for a run, take turns: one
starts a batch when its loop is quiet, the other, as with more cores, when the last one has ended. Closed loops by wrk,
and Poisson arrivals at a rate by redserve's own sender, latency from the planned time. Each server's answers are
compared with ONNX Runtime's first. Ratios are of neighbours in time, and their medians.
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "peers"))

import drivers
from several_workers import wait_until_ready
from workload import Workload

from redserve.bench.environment import environment

RESULTS = Path(__file__).parent / "results" / "until_quiet.json"
CONNECTIONS = (1, 16, 64, 128)
RATES_PER_S = (200.0, 1000.0, 4000.0)
SERVE = "import redserve.engine.onnx_runtime as o; from redserve.cli import main; {}; raise SystemExit(main())"
VARIANTS = {"at once": "o._FEW_CORES = 0", "quiet": "o._FEW_CORES = 2"}


def serve(stack: ExitStack, workload: Workload, statement: str) -> int:
    """A server until the stack is left. Returns its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command = [sys.executable, "-c", SERVE.format(statement), "serve", str(workload.model), "--port", str(port)]
    server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    stack.callback(server.terminate)
    wait_until_ready(port)
    workload.check(port)
    return port


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round; write nothing")
    parser.add_argument("--rounds", type=int, default=5, help="of each (default: 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round (default: 3)")
    options = parser.parse_args()
    rounds, seconds = (1, 1.0) if options.quick else (options.rounds, options.seconds)
    workload, driver = Workload.of("wide"), drivers.pick(None)

    def ask(port: int, connections: int, rate_per_s: float | None) -> dict[str, Any]:
        if rate_per_s is None:
            return drivers.closed(driver, workload, port, connections=connections, seconds=seconds)
        found = drivers.open_loop(workload, port, rate_per_s=rate_per_s, connections=connections, seconds=seconds)
        return {key: found[key] for key in ("per_s", "p50_ms", "p99_ms")}

    cells = []
    loads = [*((count, None) for count in CONNECTIONS), *((64, rate_per_s) for rate_per_s in RATES_PER_S)]
    with ExitStack() as stack:
        ports = {name: serve(stack, workload, statement) for name, statement in VARIANTS.items()}
        for connections, rate_per_s in loads:
            raw: dict[str, list[dict[str, Any]]] = {name: [] for name in VARIANTS}
            for number in range(rounds):
                for name in list(VARIANTS)[:: 1 if number % 2 == 0 else -1]:
                    raw[name].append(ask(ports[name], connections, rate_per_s))
            pairs = list(zip(raw["quiet"], raw["at once"], strict=True))
            ratios = {
                key: [round(quiet[key] / at_once[key], 3) for quiet, at_once in pairs]
                for key in ("per_s", "p50_ms", "p99_ms")
            }
            cell: dict[str, Any] = {"connections": connections, "asked_per_s": rate_per_s or "all they can"}
            for name, found in raw.items():
                cell |= {f"{name}, {key}": statistics.median(each[key] for each in found) for key in ratios}
            cell |= {f"ratio of {key}": statistics.median(found) for key, found in ratios.items()}
            cells.append(cell | {"ratios": ratios, "raw": raw})
            print(cell, flush=True)
    if options.quick:
        return
    document = {
        "question": (__doc__ or "").partition("\n")[0],
        "command": f"python benchmarks/until_quiet.py --rounds {rounds} --seconds {seconds:g}",
        "machine": environment(),
        "driver": driver,
        "cells": cells,
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
