"""What does it bring that the host's memory is pinned, for inputs of several sizes?

    cd benchmarks && python -m gpu.pinned --device cuda --models DIR --out OUT [--quick]

Runs from arrays to arrays, of ordinary memory and of the same memory after `cudaHostRegister`, in turns. A CPU pins
nothing, so only the first side is measured there.
"""

import ctypes
import sys
from functools import partial
from typing import Any

import numpy as np
from gpu.measurement import Measurement
from gpu.sessions import open_session
from gpu.timing import timed
from gpu.workloads import Workload, workloads

SIZES = (1, 32, 128)
LIBRARIES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")


def register(values: np.ndarray[Any, Any]) -> None:
    """Pin its pages; they stay so until the process ends.

    Raises:
        OSError: There is no CUDA runtime, or it does not want to.
    """
    status = cuda_runtime().cudaHostRegister(ctypes.c_void_p(values.ctypes.data), ctypes.c_size_t(values.nbytes), 0)
    if status:
        raise OSError(f"cudaHostRegister: CUDA error {status}")


def cuda_runtime() -> ctypes.CDLL:
    """As it lies beside ONNX Runtime, which has loaded it by now."""
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise OSError(f"none of {', '.join(LIBRARIES)} can be loaded")


def compare(measurement: Measurement, workload: Workload) -> dict[str, Any]:
    """One model."""
    session = open_session(workload, measurement.device)
    found: dict[str, Any] = {}
    for rows in SIZES[:1] if measurement.is_quick else SIZES:
        sides = {"pageable": {name: values.copy() for name, values in workload.rows(rows).items()}}
        if measurement.device == "cuda":
            sides["pinned"] = {name: values.copy() for name, values in workload.rows(rows).items()}
            for values in sides["pinned"].values():
                register(values)
        times: dict[str, Any] = {"bytes": sum(values.nbytes for values in sides["pageable"].values())}
        for turn in range(1 if measurement.is_quick else 2):
            for side, given in sides.items():
                workload.error_ratio(session.run(None, given)[0])
                run = partial(session.run, None, given)
                times[f"{side}, turn {turn + 1}"] = timed(run, seconds=0.05 if measurement.is_quick else 0.2)
        found[f"{rows} rows"] = times
    return found


def main() -> int:
    """Compare all in half precision."""
    measurement = Measurement(__file__, __doc__)
    for workload in workloads(measurement.options.models, measurement.device, precisions=("fp16",)):
        measurement.cell(workload.title, partial(compare, measurement, workload))
    return measurement.end()


if __name__ == "__main__":
    sys.exit(main())
