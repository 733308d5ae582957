"""What do several worker processes gain, and who should accept their connections?

    python benchmarks/several_workers.py [--quick] [--rounds 3] [--seconds 3]
                                         needs the dev extra; the sender is wrk where it is installed;
                                         writes benchmarks/results/several_workers.json

The small perceptron as JSON, in a closed loop as beside the peers (`peers/run.py`), against `redserve serve` with one
worker and with two, which take turns, on a server of their own each time. `cores` are those that all processes of the
server kept busy, and the sender's: where both together come to all there are, the machine is the limit. `most on one of
two` is how many of a client's connections, made one after the other, end up on the same one of two processes that both
accept.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import socket
import statistics
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "peers"))

import drivers
import uvloop
from contestants import CONTESTANTS
from rounds import Extent, ask
from running import Running
from workload import Workload

from redserve.bench.environment import environment

RESULTS = Path(__file__).parent / "results" / "several_workers.json"
CONNECTIONS = (1, 4, 64, 256)
WORKERS = (1, 2)
TRIALS = 40


def accept(listening: socket.socket) -> None:
    """Accept as a worker would, and tell each client who did."""

    class Greeting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            transport.write(b"%8d" % os.getpid())

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Greeting, sock=listening)
        await server.serve_forever()

    uvloop.run(serve())


def most_on_one(connections: int, *, reuse_port: bool, trials: int) -> list[int]:
    """Of each trial."""
    first = socket.create_server(("127.0.0.1", 0), backlog=2048, reuse_port=reuse_port)
    second = socket.create_server(first.getsockname(), backlog=2048, reuse_port=True) if reuse_port else first
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=accept, args=(each,), daemon=True) for each in (first, second)]
    for process in processes:
        process.start()
    address = first.getsockname()
    first.close()
    second.close()
    found = []
    for _ in range(trials):
        clients = [socket.create_connection(address) for _ in range(connections)]
        found.append(max(Counter(client.recv(8, socket.MSG_WAITALL) for client in clients).values()))
        for client in clients:
            client.close()
    for process in processes:
        process.kill()
        process.join()
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round; write nothing")
    parser.add_argument("--rounds", type=int, default=3, help="of each (default: 3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round (default: 3)")
    options = parser.parse_args()
    rounds, seconds, trials = (1, 0.5, 5) if options.quick else (options.rounds, options.seconds, TRIALS)
    accepting = [
        {
            "accepting": how,
            "connections": count,
            "most on one of two": most_on_one(count, reuse_port=reuse, trials=trials),
        }
        for how, reuse in (("one shared socket", False), ("SO_REUSEPORT", True))
        for count in (4, 64)
    ]
    workload, cells = Workload.of("small"), []
    for connections in CONNECTIONS:
        extent = Extent(
            driver=drivers.pick(None),
            connections=connections,
            rounds=rounds,
            seconds=seconds,
            warm_up_s=0.2 if options.quick else 1.0,
            tuning_s=0,
            rates=(),
            open_s=0,
            tries=1 if options.quick else 3,
        )
        raw: dict[int, list[dict[str, Any]]] = {workers: [] for workers in WORKERS}
        for number in range(rounds):
            for workers in WORKERS if number % 2 == 0 else WORKERS[::-1]:
                with Running(CONTESTANTS["redserve"], workload, {"workers": workers}) as server:
                    raw[workers].append(ask(server, workload, extent, seconds=seconds))
                    workload.check(server.port)
        for workers, found in raw.items():
            middle = {key: statistics.median(each[key] for each in found) for key in found[0]}
            cells.append({"connections": connections, "workers": workers, **middle, "raw": found})
            print(cells[-1], flush=True)
    for each in accepting:
        found = each.pop("most on one of two")
        each |= {"most, median": statistics.median(found), "most, worst": max(found), "raw": found}
        print(each)
    if options.quick:
        return
    document: dict[str, Any] = {
        "question": "what do several worker processes gain, and who should accept their connections?",
        "command": f"python benchmarks/several_workers.py --rounds {rounds} --seconds {seconds:g}",
        "machine": environment(),
        "driver": drivers.pick(None),
        "versions": {package: version(package) for package in ("redserve", "uvicorn", "uvloop", "onnxruntime")},
        "cells": cells,
        "accepting": accepting,
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
