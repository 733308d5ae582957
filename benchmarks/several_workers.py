"""What do several worker processes gain, and who should accept their connections?

    python benchmarks/several_workers.py [--quick] [--rounds 3] [--seconds 3]
                              needs the dev extra, and wrk; writes benchmarks/results/several_workers.json

The small perceptron as JSON from wrk with one thread, against `redserve serve --workers 1` and 2, which take turns, on
a server of their own each time. `server us` is the CPU time of all its processes for a request, `wrk us` that of wrk:
where both together come to all cores, the machine is the limit. `most on one of two` is how many of a client's
connections, made one after the other, end up on the same one of two processes that both accept.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import onnx
import uvloop
from load.watched import cpu_s
from models.perceptrons import SMALL, build, rows
from sender_speed import milliseconds, number, run

RESULTS = Path(__file__).parent / "results" / "several_workers.json"
CONNECTIONS = (1, 4, 64, 256)
WORKERS = (1, 2)
TRIALS = 40
READY_WITHIN_S = 60.0


def measure(model: Path, script: Path, *, workers: int, connections: int, seconds: float) -> dict[str, float]:
    """One server, warmed for a second."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "redserve.cli", "serve", str(model), "--port", str(port), "--log-level", "warning"]
    with subprocess.Popen([*command, "--workers", str(workers)], stdout=subprocess.DEVNULL) as server:
        try:
            wait_until_ready(port)
            load = ["wrk", "-t1", f"-c{connections}", "--latency", "-s", str(script)]
            run([*load, "-d1s", f"http://127.0.0.1:{port}/predict"])
            pids = [server.pid, *map(int, Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split())]
            began_s = sum(map(cpu_s, pids))
            said, wrk_s = run([*load, f"-d{round(seconds)}s", f"http://127.0.0.1:{port}/predict"])
            server_s = sum(map(cpu_s, pids)) - began_s
        finally:
            server.terminate()
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(said)
    requests = number(r"(\d+) requests in", said)
    return {
        "ok_per_s": number(r"Requests/sec:\s+([\d.]+)", said),
        "p50_ms": milliseconds(r"50%\s+([\d.]+)(us|ms|s)\b", said),
        "p99_ms": milliseconds(r"99%\s+([\d.]+)(us|ms|s)\b", said),
        "server_us": round(1e6 * server_s / requests, 1),
        "wrk_us": round(1e6 * wrk_s / requests, 1),
    }


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
    rounds, seconds, trials = (1, 1.0, 5) if options.quick else (options.rounds, options.seconds, TRIALS)
    accepting = [
        {
            "accepting": how,
            "connections": count,
            "most on one of two": most_on_one(count, reuse_port=reuse, trials=trials),
        }
        for how, reuse in (("one shared socket", False), ("SO_REUSEPORT", True))
        for count in (4, 64)
    ]
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        model, script = Path(folder, "small.onnx"), Path(folder, "post.lua")
        onnx.save(build("small", SMALL), model)
        body = json.dumps({"instances": rows(SMALL, 1)["x"].astype(float).round(3).tolist()})
        script.write_text(f"wrk.method='POST' wrk.body='{body}' wrk.headers['Content-Type']='application/json'")
        for connections in CONNECTIONS:
            raw: dict[int, list[dict[str, float]]] = {workers: [] for workers in WORKERS}
            for _ in range(rounds):
                for workers in WORKERS:
                    raw[workers].append(
                        measure(model, script, workers=workers, connections=connections, seconds=seconds)
                    )
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
        "python": platform.python_version(),
        "machine": {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()},
        "versions": {package: version(package) for package in ("redserve", "uvicorn", "uvloop", "onnxruntime")},
        "cells": cells,
        "accepting": accepting,
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
