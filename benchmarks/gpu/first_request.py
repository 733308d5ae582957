"""How long does the first request take after the server has said that it is ready, beside those after it?

    cd benchmarks && python -m gpu.first_request --device cuda --models DIR --out OUT [--quick]

One client whose connection is there before; requests of one row, then of the largest batch that the server chose by
itself. What has to be compiled, claimed or searched for is to be done while it loads, whose time is told too.
"""

import statistics
import sys
import time
from functools import partial
from typing import Any

from gpu.bodies import request_of
from gpu.client import Client
from gpu.measurement import Measurement
from gpu.server import Server
from gpu.workloads import Workload, workloads

FOLLOWING = 100


def first(measurement: Measurement, server: Server, workload: Workload) -> dict[str, Any]:
    """One model, loaded as a user would."""
    load_s = server.load(workload)
    try:
        info = server.info(workload)
        largest = int(info["max_batch_size"])
        found: dict[str, Any] = {"load_s": round(load_s, 2), "info": info}
        for rows in dict.fromkeys((1, largest)):
            request = request_of("binary", workload.title, workload.rows(rows))
            times_s = []
            with Client(server.port) as client:
                for _ in range(1 + (5 if measurement.is_quick else FOLLOWING)):
                    start_s = time.perf_counter()
                    answer = client.ask("binary", request)
                    times_s.append(time.perf_counter() - start_s)
            median_s = statistics.median(times_s[1:])
            found[f"{rows} rows"] = {
                "first_ms": round(1000 * times_s[0], 3),
                "median_ms": round(1000 * median_s, 3),
                "ratio": round(times_s[0] / median_s, 2),
                "error_ratio": workload.error_ratio(answer),
            }
        return found
    finally:
        server.unload(workload)


def main() -> int:
    """Measure all, but TF32, which loads what single precision does."""
    measurement = Measurement(__file__, __doc__)
    with Server(measurement.device) as server:
        for workload in workloads(measurement.options.models, measurement.device, precisions=("fp16", "fp32")):
            measurement.cell(workload.title, partial(first, measurement, server, workload))
    return measurement.end()


if __name__ == "__main__":
    sys.exit(main())
