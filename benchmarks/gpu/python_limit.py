"""How many HTTP requests a second does one process carry before the GPU waits for Python?

    cd benchmarks && python -m gpu.python_limit --device cuda --models DIR --out OUT [--quick]

The perceptron, which costs a GPU little, asked for one row at a time, in binary and in JSON, by more and more
connections. Where requests a second grow no more, `server_cores` is what the process burns and `busy_ratio` how much of
the time a batch was running: near 1 the device is the limit, below it Python is.
"""

import sys
from functools import partial
from typing import Any

from gpu.http_share import requests_of
from gpu.measurement import Measurement
from gpu.server import Server
from gpu.workloads import Workload, workloads

CONNECTIONS = (1, 16, 64, 256, 1024)


def carried(
    measurement: Measurement, server: Server, workload: Workload, form: str, connections: int
) -> dict[str, Any]:
    """One closed loop."""
    seconds = 0.4 if measurement.is_quick else 1.0
    return server.drive(requests_of(form, workload, 1), rows=1, connections=connections, seconds=seconds)


def main() -> int:
    """Measure all."""
    measurement = Measurement(__file__, __doc__)
    (workload, *_) = workloads(measurement.options.models, measurement.device, precisions=("fp16",))
    with Server(measurement.device) as server:
        server.load(workload, max_batch_size=256)
        server.check(workload, 3)
        for form in ("binary", "json"):
            for connections in CONNECTIONS[1:2] if measurement.is_quick else CONNECTIONS:
                measure = partial(carried, measurement, server, workload, form, connections)
                measurement.cell(f"{workload.title}, {form}, {connections} connections", measure)
    return measurement.end()


if __name__ == "__main__":
    sys.exit(main())
