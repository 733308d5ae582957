"""What does batching gain, by model and connections?

    python benchmarks/batching_gain.py [--quick] [--rounds 3] [--only small,wide]
                                             needs redserve[models]; writes benchmarks/results/batching_gain.json

Two `redserve serve` of each model, one as it is, one with `--max-batch-size 1`, both with one thread a run, take turns
in a closed loop of one-row requests by redserve's own sender, which shares the machine. Every model is one of
`benchmarks/models/`; each server's answers are compared with ONNX Runtime's first. The size of the batches is what the
server's metrics say. A gain is a ratio of requests a second, round by round, and its median.
"""

import argparse
import http.client
import json
import statistics
import sys
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from load.watched import read_scrape
from load.wire import head
from models.build import RECIPES, built, runner

from redserve.bench import Load, run_load
from redserve.bench.environment import environment

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "end_to_end"))
from fetch import fetch
from served import Served

RESULTS = Path(__file__).parent / "results" / "batching_gain.json"
VARIANTS = {"batched": (), "one by one": ("--max-batch-size", "1")}
BARE_BYTES = ("efficientnet_lite0",)
"""Asked by `application/octet-stream`: a photograph as JSON is 3 MB, and would be what is measured."""
ROWS = 16
TOLERANCE = 1e-3
QUICK = ("small", "forest")


class Asked:
    """One model, requests of a row each, and the right answers."""

    def __init__(self, name: str) -> None:
        self.path = built(name)
        rows = RECIPES[name].rows(ROWS)
        self._right = runner(self.path)(rows)
        self.bodies = [self._body(name, rows, number) for number in range(ROWS)]
        self._type = "octet-stream" if name in BARE_BYTES else "json"

    def _body(self, name: str, rows: Any, number: int) -> bytes:
        row = {key: values[number] for key, values in rows.items()}
        if name in BARE_BYTES:
            (values,) = row.values()
            return values.tobytes()
        instance = row if len(row) > 1 else next(iter(row.values()))
        return orjson.dumps({"instances": [instance]}, option=orjson.OPT_SERIALIZE_NUMPY)

    def requests(self) -> list[bytes]:
        """Whole HTTP/1.1 requests."""
        return [
            head("POST", "/predict", f"Content-Type: application/{self._type}\r\nContent-Length: {len(body)}\r\n")
            + body
            for body in self.bodies
        ]

    def check(self, port: int) -> None:
        """Compare each answer.

        Raises:
            RuntimeError: One is wrong.
        """
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for number, body in enumerate(self.bodies):
            connection.request("POST", "/predict", body, {"Content-Type": f"application/{self._type}"})
            answer = connection.getresponse().read()
            (found,) = json.loads(answer)["predictions"]
            values = found.values() if isinstance(found, dict) else [found]
            for value, right in zip(values, self._right, strict=True):
                if not np.allclose(value, right[number], rtol=TOLERANCE, atol=TOLERANCE):
                    raise RuntimeError(f"{self.path.stem}: a wrong answer to row {number}: {answer[:200]!r}")
        connection.close()


def ask(server: Served, asked: Asked, *, connections: int, seconds: float) -> dict[str, Any]:
    """One closed loop."""
    port = int(server.url.rpartition(":")[2])
    before = read_scrape(fetch(f"{server.url}/metrics"))
    load = Load(host="127.0.0.1", port=port, requests=asked.requests(), connections=connections, duration_s=seconds)
    tally = run_load(load, warm_up_s=seconds / 8)
    after = read_scrape(fetch(f"{server.url}/metrics"))
    if tally.failures:
        raise RuntimeError(f"not every request was answered: {tally.failures}")
    return {
        "per_s": round(tally.ok_per_s, 1),
        "p50_ms": round(1000 * tally.latency.percentile_s(50), 3),
        "p99_ms": round(1000 * tally.latency.percentile_s(99), 3),
        "batch_mean_rows": round((after.run_rows - before.run_rows) / (after.runs - before.runs), 2),
    }


def compare(name: str, *, loads: tuple[int, ...], rounds: int, seconds: float) -> dict[str, Any]:
    """One model."""
    asked = Asked(name)
    cells: dict[str, Any] = {}
    with ExitStack() as stack:
        servers = {}
        for variant, flags in VARIANTS.items():
            servers[variant] = stack.enter_context(Served(str(asked.path), "--intra-op-threads", "1", *flags))
            asked.check(int(servers[variant].url.rpartition(":")[2]))
        for connections in loads:
            found: dict[str, list[dict[str, Any]]] = {variant: [] for variant in VARIANTS}
            for number in range(rounds):
                for variant in list(VARIANTS)[:: 1 if number % 2 == 0 else -1]:
                    found[variant].append(ask(servers[variant], asked, connections=connections, seconds=seconds))
            gains = [
                one["per_s"] / other["per_s"] for one, other in zip(found["batched"], found["one by one"], strict=True)
            ]
            cells[str(connections)] = {
                "gain": round(statistics.median(gains), 2),
                "gains": [round(gain, 2) for gain in gains],
                **{variant: {key: median(runs, key) for key in runs[0]} for variant, runs in found.items()},
                "rounds": found,
            }
            print(line_of(name, connections, cells[str(connections)]), flush=True)
    return {"doc": RECIPES[name].doc, "body_bytes": len(asked.bodies[0]), "by_connections": cells}


def median(runs: list[dict[str, Any]], key: str) -> float:
    """Of one figure."""
    return round(statistics.median(run[key] for run in runs), 3)


def line_of(name: str, connections: int, cell: dict[str, Any]) -> str:
    """A line of the table."""
    one, other = cell["batched"], cell["one by one"]
    return (
        f"{name:<20}{connections:>4} connections   {other['per_s']:>9,.0f}/s -> {one['per_s']:>9,.0f}/s"
        f"  x{cell['gain']:.2f}   p99 {other['p99_ms']:>8.1f} -> {one['p99_ms']:>8.1f} ms"
        f"   {one['batch_mean_rows']:.1f} rows a batch"
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two models for a moment; write nothing")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="models, separated by commas; the others stay as they are")
    options = parser.parse_args()
    if options.quick:
        for name in QUICK:
            compare(name, loads=(8,), rounds=1, seconds=0.3)
        return
    document: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"models": {}}
    document |= {
        "question": (__doc__ or "").partition("\n")[0],
        "command": f"python benchmarks/batching_gain.py --rounds {options.rounds}",
        "machine": environment(),
        "versions": {name: version(name) for name in ("redserve", "fastapi", "numpy", "onnxruntime", "uvicorn")},
    }
    for name in options.only.split(",") if options.only else RECIPES:
        document["models"][name] = compare(name, loads=(1, 8, 64), rounds=options.rounds, seconds=2.0)
        RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
