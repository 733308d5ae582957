"""One load from this process: the JSON file that is named says what, one line of JSON says what came of it.

{"port": 8000, "requests": ["POST ...", ...], "connections": 64, "seconds": 3, "rate_per_s": 2000}

Without a rate it is a closed loop.
"""

import json
import sys
from pathlib import Path

from redserve.bench import Load, Poisson, run_load
from redserve.bench.verdict import kept_rate

TIMEOUT_S = 5.0


def main(path: Path) -> None:
    """Send, print."""
    asked = json.loads(path.read_text())
    rate = asked.get("rate_per_s")
    load = Load(
        host="127.0.0.1",
        port=asked["port"],
        requests=[request.encode() for request in asked["requests"]],
        arrivals=None if rate is None else Poisson(rate),
        connections=asked["connections"],
        duration_s=asked["seconds"],
        timeout_s=TIMEOUT_S,
    )
    tally = run_load(load)
    found = {
        "requests": tally.ok,
        "per_s": round(tally.ok_per_s, 1),
        "p50_ms": round(1000 * tally.latency.percentile_s(50), 3),
        "p99_ms": round(1000 * tally.latency.percentile_s(99), 3),
        "failures": tally.failures,
    }
    if rate is not None:
        found |= {
            "rate_per_s": rate,
            "own_delay_p99_ms": round(1000 * tally.own_delay.percentile_s(99), 3),
            "unsent": tally.unsent,
            "kept_rate": kept_rate(tally),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
