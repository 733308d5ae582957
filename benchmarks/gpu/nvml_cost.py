"""What does it cost to ask the driver how the GPU is, call by call?

    cd benchmarks && python -m gpu.nvml_cost --device cuda --models DIR --out OUT [--quick]

Microseconds of each call of NVML while nothing runs; a call that this GPU does not know is told with its error. On a
CPU the memory of a process is read from `/proc` in its place.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from gpu.device import memory_used, open_nvml
from gpu.measurement import Measurement
from gpu.timing import timed


def calls(device: str) -> dict[str, Callable[[], object]]:
    """What a poll would ask."""
    if device == "cpu":
        return {"process memory": memory_used(device, os.getpid())}
    nvml, handle = open_nvml()
    return {
        "utilisation": partial(nvml.nvmlDeviceGetUtilizationRates, handle),
        "memory": partial(nvml.nvmlDeviceGetMemoryInfo, handle),
        "power": partial(nvml.nvmlDeviceGetPowerUsage, handle),
        "energy": partial(nvml.nvmlDeviceGetTotalEnergyConsumption, handle),
        "temperature": partial(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
        "clock": partial(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
        "clock reasons": partial(nvml.nvmlDeviceGetCurrentClocksEventReasons, handle),
        "processes": partial(nvml.nvmlDeviceGetComputeRunningProcesses, handle),
    }


def cost(measurement: Measurement, call: Callable[[], object]) -> dict[str, Any]:
    """One call."""
    found = timed(call, seconds=0.05 if measurement.is_quick else 0.3)
    return {"p50_us": 1000 * found["p50_ms"], "p99_us": 1000 * found["p99_ms"], "runs": found["runs"]}


def main() -> int:
    """Time each."""
    measurement = Measurement(__file__, __doc__)
    for name, call in calls(measurement.device).items():
        measurement.cell(name, partial(cost, measurement, call))
    return measurement.end()


if __name__ == "__main__":
    sys.exit(main())
