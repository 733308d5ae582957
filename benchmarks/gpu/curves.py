"""How many rows a second does the device run by batch size, and what of that is the copying?

    cd benchmarks && python -m gpu.curves --device cuda --models DIR --out OUT [--quick]

Offline, one caller: ONNX Runtime from arrays to arrays, which is the ceiling of a server; the same with inputs and
outputs that stay on the device; and redserve's engine. Sizes double until two in a row bring nothing. `ceiling` is the
best of the first.
"""

import sys
from functools import partial
from typing import Any

from gpu.measurement import Measurement
from gpu.sessions import from_host, on_device, open_session
from gpu.timing import timed
from gpu.workloads import Workload, WrongAnswer, workloads

from redserve.engine import OnnxRuntimeEngine

MOST_ROWS, MOST_ROWS_QUICK = 512, 2


def curve(measurement: Measurement, workload: Workload) -> dict[str, Any]:
    """One model."""
    device, seconds = measurement.device, 0.02 if measurement.is_quick else 0.12
    session = open_session(workload, device)
    options = workload.provider_options(device)
    engine = OnnxRuntimeEngine.load(workload.path, device=device, provider_options=options)
    points: list[dict[str, Any]] = []
    ended: dict[str, str] = {}
    best, fruitless, rows = 0.0, 0, 1
    while rows <= (MOST_ROWS_QUICK if measurement.is_quick else MOST_ROWS) and fruitless < 2 and measurement.left_s:
        run, given = from_host(session, workload, rows), workload.rows(rows)
        try:
            error_ratio = workload.error_ratio(run())
            kinds = {
                "host": run,
                "device": on_device(session, workload, rows, device),
                "engine": partial(engine.run, given),
            }
            times = {kind: timed(call, seconds=seconds) for kind, call in kinds.items()}
        except WrongAnswer:
            raise
        except Exception as error:  # a batch that does not fit the memory is where the curve ends
            ended = {f"{rows} rows failed": str(error)[:300]}
            break
        rows_per_s = {kind: round(1000 * rows / found["p50_ms"], 1) for kind, found in times.items()}
        points.append({"rows": rows, "error_ratio": error_ratio, "rows_per_s": rows_per_s, **times})
        fruitless = 0 if rows_per_s["host"] > 1.02 * best else fruitless + 1
        best = max(best, rows_per_s["host"])
        rows *= 2
    return {"ceiling": ceiling_of(points), **ended, **{f"{point['rows']} rows": point for point in points}}


def ceiling_of(points: list[dict[str, Any]]) -> dict[str, float]:
    """The smallest batch within 2 % of the most rows a second from host to host."""
    best = max(point["rows_per_s"]["host"] for point in points)
    point = next(point for point in points if point["rows_per_s"]["host"] >= 0.98 * best)
    return {"rows": point["rows"], "rows_per_s": best}


def main() -> int:
    """Measure all."""
    measurement = Measurement(__file__, __doc__)
    for workload in workloads(measurement.options.models, measurement.device):
        measurement.cell(workload.title, partial(curve, measurement, workload))
    return measurement.end()


if __name__ == "__main__":
    sys.exit(main())
