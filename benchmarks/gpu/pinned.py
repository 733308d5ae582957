"""What does it bring that the host's memory is page-locked, for inputs of several sizes?

    cd benchmarks && python -m gpu.pinned --device cuda --models DIR --out OUT [--quick]

ONNX Runtime from arrays to arrays, of ordinary memory and of page-locked memory, in turns; then a server with either
setting, asked in binary in a closed loop. A CPU locks nothing, so there both sides of the server are the same.
"""

import sys
from functools import partial
from typing import Any

from gpu.compared import compare_settings
from gpu.measurement import Measurement
from gpu.server import Server
from gpu.sessions import open_session
from gpu.timing import timed
from gpu.workloads import Arrays, Workload, workloads

from redserve.engine.cudart import find_cudart

SIZES = (1, 32, 128)
VARIANTS = {"pageable": {"pinned": False}, "pinned": {"pinned": True}}
IN_A_SERVER = ("efficientnet_lite0", "mlp")
"""The one with the largest rows; the other stands in where it is not there."""


def offline(measurement: Measurement, workload: Workload) -> dict[str, Any]:
    """One model."""
    session = open_session(workload, measurement.device)
    found: dict[str, Any] = {}
    for rows in SIZES[:1] if measurement.is_quick else SIZES:
        sides = {"pageable": workload.rows(rows)}
        if measurement.device == "cuda":
            sides["pinned"] = page_locked(sides["pageable"])
        times: dict[str, Any] = {"bytes": sum(values.nbytes for values in sides["pageable"].values())}
        for turn in range(1 if measurement.is_quick else 2):
            for side, given in sides.items():
                workload.error_ratio(session.run(None, given)[0])
                run = partial(session.run, None, given)
                times[f"{side}, turn {turn + 1}"] = timed(run, seconds=0.05 if measurement.is_quick else 0.2)
        found[f"{rows} rows"] = times
    return found


def page_locked(given: Arrays) -> Arrays:
    """The same values, where the device reads by itself.

    Raises:
        OSError: There is no CUDA runtime.
    """
    cudart = find_cudart(0)
    if cudart is None:
        raise OSError("no CUDA runtime can be loaded")
    copies = {name: cudart.empty(values.shape, values.dtype) for name, values in given.items()}
    for name, values in given.items():
        copies[name][:] = values
    return copies


def main() -> int:
    """Compare all in half precision."""
    measurement = Measurement(__file__, __doc__)
    by_name = {one.name: one for one in workloads(measurement.options.models, measurement.device, precisions=("fp16",))}
    for workload in by_name.values():
        measurement.cell(workload.title, partial(offline, measurement, workload))
    served = next(by_name[name] for name in IN_A_SERVER if name in by_name)
    with Server(measurement.device) as server:
        compare = partial(compare_settings, measurement, server, served, VARIANTS)
        measurement.cell(f"{served.title}, served", compare)
    return measurement.end()


if __name__ == "__main__":
    sys.exit(main())
