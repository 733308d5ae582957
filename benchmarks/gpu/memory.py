"""What memory does a model take when it loads, runs large batches and is unloaded, and does it stay flat?

    cd benchmarks && python -m gpu.memory --device cuda --models DIR --out OUT [--quick] [--steady-s 600]

MiB of the whole GPU as NVML tells them, above what was taken before the first load; so CUDA itself is in all of them.
On a CPU, of the server's process. Nobody else should use the GPU meanwhile. First one model serves for `--steady-s`,
looked at every half second; then each is loaded, asked for small batches, large ones and so many small ones that the
large were rare, and unloaded, again and again.
"""

import sys
import threading
import time
from functools import partial
from typing import Any

from gpu.bodies import request_of
from gpu.client import Client
from gpu.device import memory_used
from gpu.http_share import requests_of
from gpu.measurement import Measurement
from gpu.server import Server
from gpu.workloads import Workload, workloads

LARGE_ROWS = 256
TIMES = 4
MIB = 2**20


class Meter:
    """Memory above where it began."""

    def __init__(self, measurement: Measurement, server: Server) -> None:
        self._used = memory_used(measurement.device, server.pid)
        self._before = self._used()

    def mib(self) -> float:
        """Now."""
        return round((self._used() - self._before) / MIB, 1)


def batches(measurement: Measurement, server: Server, workload: Workload, meter: Meter) -> dict[str, Any]:
    """Load, small, large, small, unload, and again."""
    large = 16 if measurement.is_quick else LARGE_ROWS
    rounds = []
    for _ in range(2 if measurement.is_quick else TIMES):
        server.load(workload, max_batch_size=large)
        found = {"loaded_mib": meter.mib()}
        again = 3 if measurement.is_quick else 300
        for name, rows, times in (("small", 1, 3), ("large", large, 3), ("small_again", 1, again)):
            with Client(server.port) as client:
                for _ in range(times):
                    client.ask("binary", request_of("binary", workload.title, workload.rows(rows)))
            found[f"{name}_mib"] = meter.mib()
        server.unload(workload)
        found["unloaded_mib"] = settled(meter, 0.2 if measurement.is_quick else 1.0)
        rounds.append(found)
    return {"large_rows": large, "rounds": rounds}


def settled(meter: Meter, seconds: float) -> float:
    """The least within so many seconds: a model that is unloaded is freed in a thread of its own."""
    end_s, least = time.monotonic() + seconds, meter.mib()
    while time.monotonic() < end_s:
        time.sleep(0.05)
        least = min(least, meter.mib())
    return least


def steady(measurement: Measurement, server: Server, workload: Workload, meter: Meter) -> dict[str, Any]:
    """Under load; the growth is that from the first fifth to the last look."""
    seconds = 1.0 if measurement.is_quick else float(measurement.options.steady_s)
    server.load(workload, max_batch_size=32)
    samples: list[float] = []
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(0.5 if seconds > 5 else 0.1):
            samples.append(meter.mib())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        requests = requests_of("binary", workload, 1)
        driven = server.drive(requests, rows=1, connections=4 if measurement.is_quick else 32, seconds=seconds)
    finally:
        is_over.set()
        watcher.join()
        server.unload(workload)
    return {
        "seconds": seconds,
        "growth_mib": round(samples[-1] - samples[len(samples) // 5], 1),
        "least_mib": min(samples),
        "most_mib": max(samples),
        "looks": len(samples),
        "driven": driven,
    }


def main() -> int:
    """Measure all in half precision, one steadily."""
    arguments = {"--steady-s": {"type": float, "default": 8.0, "metavar": "S"}}
    measurement = Measurement(__file__, __doc__, arguments=arguments)
    chosen = workloads(measurement.options.models, measurement.device, precisions=("fp16",))
    with Server(measurement.device) as server:
        meter = Meter(measurement, server)
        measurement.cell("steady", partial(steady, measurement, server, chosen[-1], meter))
        for workload in chosen:
            measurement.cell(workload.title, partial(batches, measurement, server, workload, meter))
    return measurement.end()


if __name__ == "__main__":
    sys.exit(main())
