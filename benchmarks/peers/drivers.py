"""Who sends. Closed loop: wrk, or redserve's own sender. Open loop: redserve's own sender, in a process of its own.

wrk is nobody's of those compared. Sender and server share the cores, so what a sender costs is part of what is
measured, and the two are not to be mixed in a comparison.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from workload import Workload

HERE = Path(__file__).parent
LIMIT_S = 60.0


class Failed(Exception):
    """Requests without a right status: the number would say nothing."""


def pick(name: str | None) -> str:
    """`wrk` where it is installed, else `redserve`; or the one asked for."""
    if name == "wrk" and shutil.which("wrk") is None:
        raise SystemExit("there is no wrk on PATH (Debian's package wrk): take --driver redserve")
    return name or ("wrk" if shutil.which("wrk") else "redserve")


def closed(driver: str, workload: Workload, port: int, *, connections: int, seconds: float) -> dict[str, Any]:
    """As many requests as so many connections get answered, one at a time on each.

    Raises:
        Failed: One was not answered with 200.
    """
    if driver == "redserve":
        own = _own(workload, port, connections=connections, seconds=seconds)
        if own.pop("failures"):
            raise Failed(f"redserve's sender: {own}")
        return own
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"\n".join(workload.bodies))
        file.flush()
        url = f"http://127.0.0.1:{port}/predict"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(round(seconds), 1)}s", "--timeout", "10s"]
        said = _do([*command, "-s", str(HERE / "rows.lua"), url, "--", file.name])
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    if found["not_2xx"] or found["broken"]:
        raise Failed(f"wrk: {found}")
    return {
        "requests": found["requests"],
        "per_s": round(found["requests"] / found["seconds"], 1),
        "p50_ms": found["p50_ms"],
        "p99_ms": found["p99_ms"],
    }


def open_loop(workload: Workload, port: int, *, rate_per_s: float, connections: int, seconds: float) -> dict[str, Any]:
    """Poisson arrivals at a rate; latency counts from the planned time, of those answered with 200; others are kept."""
    return _own(workload, port, connections=connections, seconds=seconds, rate_per_s=rate_per_s)


def _own(workload: Workload, port: int, **how: float) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile() as file:
        asked = {"port": port, "requests": [workload.request(n).decode() for n in range(len(workload.bodies))], **how}
        file.write(json.dumps(asked).encode())
        file.flush()
        found: dict[str, Any] = json.loads(_do([sys.executable, str(HERE / "send.py"), file.name]))
    return found


def _do(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        raise Failed(f"{command[0]} ended with {done.returncode}: {done.stdout[-500:]} {done.stderr[-2_000:]}")
    return done.stdout
