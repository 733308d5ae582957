"""How fast does the sender of `redserve bench` send, beside wrk and hey?

    python benchmarks/sender_speed.py [--quick] [--rounds 5] [--seconds 5]
                                                  needs redserve[bench]; writes benchmarks/results/sender_speed.json

One process each, 64 connections, a POST of one row of 64 numbers, against the least server there is; all take turns,
A B C D A B C D. `sender us` is the CPU time of the sending process for a request: what it takes away from a server on
the same machine. In the open loop all that was planned must have left, and `own delay` says how late. wrk and hey are
taken from PATH (Debian has packages of both) and left out where they are not there.
"""

import argparse
import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from load.watched import cpu_s

from redserve.bench import Arrivals, Constant, Load, Poisson, Tally
from redserve.bench.processes import Processes

RESULTS = Path(__file__).parent / "results" / "sender_speed.json"
SERVER = [sys.executable, str(Path(__file__).parent / "load" / "bare_server.py")]
CONNECTIONS = 64
OPEN_PER_S = 8_000.0
BODY = json.dumps({"instances": [[0.5] * 64]})
HEAD = "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
REQUEST = f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n{BODY}".encode()

Sent = dict[str, float]
Send = Callable[[int, float], Sent]


def send_with_ours(arrivals: Arrivals | None) -> Send:
    """One sending process, as `redserve bench` starts it."""

    def send(port: int, seconds: float) -> Sent:
        load = Load(
            host="127.0.0.1",
            port=port,
            requests=[REQUEST],
            arrivals=arrivals,
            connections=CONNECTIONS,
            duration_s=seconds,
        )
        with Processes(load, 1) as senders:
            senders.run(0.2, lambda now_s, new: None)
            (pid,), started_s = senders.pids, cpu_s(senders.pids[0])
            tally = senders.run(seconds, lambda now_s, new: None)
            sender_s = cpu_s(pid) - started_s
        check(tally, arrivals)
        found = {
            "ok_per_s": tally.ok_per_s,
            "requests": float(tally.planned),
            "sender_us": 1e6 * sender_s / tally.planned,
            "p50_ms": 1000 * tally.latency.percentile_s(50),
            "p99_ms": 1000 * tally.latency.percentile_s(99),
        }
        if arrivals is not None:
            found |= {
                "planned_per_s": tally.planned / seconds,
                "unsent": float(tally.unsent),
                "own_delay_p50_ms": 1000 * tally.own_delay.percentile_s(50),
                "own_delay_p99_ms": 1000 * tally.own_delay.percentile_s(99),
            }
        return found

    return send


def check(tally: Tally, arrivals: Arrivals | None) -> None:
    """Everything was answered.

    Raises:
        RuntimeError: It was not.
    """
    if tally.failed or not tally.ok or (arrivals is None and tally.unsent):
        raise RuntimeError(f"{tally.ok} ok, {tally.failed} failed: {tally.examples}")


def send_with_wrk(port: int, seconds: float) -> Sent:
    """One thread."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f"wrk.method = 'POST'\nwrk.body = '{BODY}'\nwrk.headers['Content-Type'] = 'application/json'\n")
        script.flush()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{round(seconds)}s", "--latency", "-s", script.name]
        said, sender_s = run([*command, f"http://127.0.0.1:{port}/predict"])
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(said)
    requests = number(r"(\d+) requests in", said)
    return {
        "ok_per_s": number(r"Requests/sec:\s+([\d.]+)", said),
        "requests": requests,
        "sender_us": 1e6 * sender_s / requests,
        "p50_ms": milliseconds(r"50%\s+([\d.]+)(us|ms|s)", said),
        "p99_ms": milliseconds(r"99%\s+([\d.]+)(us|ms|s)", said),
    }


def send_with_hey(port: int, seconds: float) -> Sent:
    """As many goroutines as connections."""
    command = ["hey", "-c", str(CONNECTIONS), "-z", f"{round(seconds)}s", "-m", "POST", "-T", "application/json"]
    said, sender_s = run([*command, "-d", BODY, f"http://127.0.0.1:{port}/predict"])
    if "Error distribution" in said:
        raise RuntimeError(said)
    requests = number(r"\[200\]\s+(\d+) responses", said)
    return {
        "ok_per_s": number(r"Requests/sec:\s+([\d.]+)", said),
        "requests": requests,
        "sender_us": 1e6 * sender_s / requests,
        "p50_ms": 1000 * number(r"50% in ([\d.]+) secs", said),
        "p99_ms": 1000 * number(r"99% in ([\d.]+) secs", said),
    }


def run(command: list[str]) -> tuple[str, float]:
    """What a program prints, and the CPU time it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return said, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def number(pattern: str, text: str) -> float:
    """The number that `pattern` finds.

    Raises:
        RuntimeError: It finds none.
    """
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"no {pattern} in {text}")
    return float(found[1])


def milliseconds(pattern: str, text: str) -> float:
    """The same of a time with its unit."""
    found = re.search(pattern, text)
    return number(pattern, text) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2] if found else "s"]


def measure(senders: dict[str, Send], *, rounds: int, seconds: float) -> dict[str, list[Sent]]:
    """All take turns against one server."""
    rows: dict[str, list[Sent]] = {name: [] for name in senders}
    with subprocess.Popen(SERVER, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            port = int(server.stdout.readline())
            for _ in range(rounds):
                for name, send in senders.items():
                    found = send(port, seconds)
                    rows[name].append({key: round(value, 3) for key, value in found.items()})
        finally:
            server.terminate()
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round; write nothing")
    parser.add_argument("--rounds", type=int, default=5, help="of each (default: 5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round (default: 5)")
    options = parser.parse_args()
    rounds, seconds = (1, 1.0) if options.quick else (options.rounds, options.seconds)
    others: dict[str, Send] = {"wrk": send_with_wrk, "hey": send_with_hey}
    senders: dict[str, Send] = {
        "redserve bench, closed loop": send_with_ours(None),
        **{name: send for name, send in others.items() if shutil.which(name)},
        f"redserve bench, open loop, constant {OPEN_PER_S:,.0f}/s": send_with_ours(Constant(OPEN_PER_S)),
        f"redserve bench, open loop, poisson {OPEN_PER_S:,.0f}/s": send_with_ours(Poisson(OPEN_PER_S)),
    }
    rows = measure(senders, rounds=rounds, seconds=seconds)
    print(f"{'':<46}{'ok/s':>9}  {'least to most':>17}{'p50 ms':>9}{'p99 ms':>9}{'sender us':>11}{'own delay p99':>15}")
    for name, found in rows.items():
        rates = [row["ok_per_s"] for row in found]
        middle = {key: statistics.median(row[key] for row in found) for key in found[0]}
        spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
        delay = f"{middle['own_delay_p99_ms']:>12.2f} ms" if "own_delay_p99_ms" in middle else ""
        print(
            f"{name:<46}{middle['ok_per_s']:>9,.0f}  {spread:>17}{middle['p50_ms']:>9.2f}{middle['p99_ms']:>9.2f}"
            f"{middle['sender_us']:>11.1f}{delay}"
        )
    if options.quick:
        return
    document: dict[str, Any] = {
        "question": "how fast does the sender of `redserve bench` send, beside wrk and hey?",
        "command": f"python benchmarks/sender_speed.py --rounds {rounds} --seconds {seconds:g}",
        "connections": CONNECTIONS,
        "request_bytes": len(REQUEST),
        "python": platform.python_version(),
        "machine": {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()},
        "versions": {package: version(package) for package in ("redserve", "httptools", "uvloop", "hdrhistogram")},
        "rounds": rows,
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
