"""How much of the offline ceiling is reached over HTTP, by wire format, and at which latency?

    cd benchmarks && python -m gpu.http_share --device cuda --models DIR --out OUT [--quick]

For each model the ceiling is measured first (ONNX Runtime by itself, from arrays to arrays), then a server that batches
up to that size is asked: a row and 16 rows a request in binary, a row in JSON, in a closed loop, and one row in binary
by independent clients at half of the rate that was reached. A quarter of the cores sends. Answers are compared first.
"""

import gc
import sys
from functools import partial
from typing import Any

from gpu.bodies import request_of
from gpu.curves import ceiling_of
from gpu.measurement import Measurement
from gpu.server import Server
from gpu.sessions import from_host, open_session
from gpu.timing import timed
from gpu.workloads import Workload, workloads

SIZES = (8, 16, 32, 64, 128, 256)
LOADS = {"binary, 1 row": ("binary", 1, 256), "binary, 16 rows": ("binary", 16, 64), "json, 1 row": ("json", 1, 64)}


def ceiling(measurement: Measurement, workload: Workload) -> dict[str, float]:
    """Rows a second, offline, and the size of the batch."""
    seconds = 0.02 if measurement.is_quick else 0.15
    session = open_session(workload, measurement.device)
    points: list[dict[str, Any]] = []
    for rows in SIZES[:1] if measurement.is_quick else SIZES:
        found = timed(from_host(session, workload, rows), seconds=seconds, at_least=3)
        points.append({"rows": rows, "rows_per_s": {"host": round(1000 * rows / found["p50_ms"], 1)}})
    return ceiling_of(points)


def share(measurement: Measurement, server: Server, workload: Workload) -> dict[str, Any]:
    """One model."""
    limit = ceiling(measurement, workload)
    gc.collect()  # the session's memory is wanted by the server
    load_s = server.load(workload, max_batch_size=int(limit["rows"]))
    try:
        found: dict[str, Any] = {"ceiling": limit, "load_s": round(load_s, 2), "info": server.info(workload)}
        found["error_ratio"] = server.check(workload, 3)
        seconds = 0.4 if measurement.is_quick else 1.5
        for name, (form, rows, connections) in LOADS.items():
            requests = requests_of(form, workload, rows)
            drive = partial(server.drive, requests, rows=rows, seconds=seconds)
            reached = drive(connections=4 if measurement.is_quick else connections)
            found[name] = {**reached, "share_of_ceiling": round(reached["rows_per_s"] / limit["rows_per_s"], 3)}
            if name == "binary, 1 row":
                half = reached["requests_per_s"] / 2
                found["binary, 1 row, at half of that"] = drive(connections=4, rate_per_s=half)
        return found
    finally:
        server.unload(workload)


def requests_of(form: str, workload: Workload, rows: int) -> list[bytes]:
    """Some different ones."""
    given = workload.rows(4 * rows)
    parts = (
        {name: values[start : start + rows] for name, values in given.items()} for start in range(0, 4 * rows, rows)
    )
    return [request_of(form, workload.title, part) for part in parts]


def main() -> int:
    """Measure all."""
    measurement = Measurement(__file__, __doc__)
    with Server(measurement.device) as server:
        for workload in workloads(measurement.options.models, measurement.device):
            measurement.cell(workload.title, partial(share, measurement, server, workload))
    return measurement.end()


if __name__ == "__main__":
    sys.exit(main())
