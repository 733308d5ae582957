"""What do CUDA graphs bring, by model and batch size?

    cd benchmarks && python -m gpu.graphs --device cuda --models DIR --out OUT [--quick]

Runs with inputs and outputs that stay on the device, one batch size a graph, with and without. The first run with a
graph captures it, which is told; then the inputs are changed, and the answer has to follow. `engine` is redserve's
from arrays to arrays, for models whose sizes are fixed but for the rows, and `served` a server. A CPU has no graphs:
what stays on the device is measured without them, and the engine with all that is around one.
"""

import sys
import time
from functools import partial
from typing import Any

import numpy as np
import onnxruntime
from gpu.compared import compare_settings
from gpu.measurement import Measurement
from gpu.server import Server
from gpu.sessions import open_session
from gpu.timing import timed
from gpu.workloads import Workload, workloads

from redserve.engine import OnnxRuntimeEngine

SIZES = (1, 8, 32)
FIXED_SIZES = ("mlp", "efficientnet_lite0")


def compare(measurement: Measurement, workload: Workload) -> dict[str, Any]:
    """One model."""
    device, is_quick = measurement.device, measurement.is_quick
    found: dict[str, Any] = {}
    for side in ("off", "on") if device == "cuda" else ("off",):
        cuda = {"enable_cuda_graph": "1"} if side == "on" else {}
        session = open_session(workload, device, cuda=cuda)
        for number, rows in enumerate(SIZES[:1] if is_quick else SIZES, start=1):
            options = onnxruntime.RunOptions()
            options.add_run_config_entry("gpu_graph_id", str(number) if side == "on" else "-1")
            found.setdefault(f"{rows} rows", {})[side] = one_side(
                session, workload, rows, device, options, seconds=0.05 if is_quick else 0.3
            )
    return found


def one_side(
    session: Any, workload: Workload, rows: int, device: str, options: Any, *, seconds: float
) -> dict[str, Any]:
    """Fixed buffers: written, run, read, timed."""
    given = {name: np.ascontiguousarray(values) for name, values in workload.rows(rows).items()}
    zeros = {name: np.zeros_like(values) + (values.dtype.kind == "i") for name, values in given.items()}
    inputs = {name: onnxruntime.OrtValue.ortvalue_from_numpy(values, device, 0) for name, values in zeros.items()}
    shape = (rows, *workload.right.shape[1:])
    output = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, device, 0)
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_ortvalue_output(session.get_outputs()[0].name, output)
    run = partial(session.run_with_iobinding, binding, options)
    began_s = time.perf_counter()
    for _ in range(3):
        run()
    first_s = time.perf_counter() - began_s
    for name, value in inputs.items():
        value.update_inplace(given[name])
    run()
    error_ratio = workload.error_ratio(output.numpy())
    return {"first_three_runs_ms": round(1000 * first_s, 2), "error_ratio": error_ratio, **timed(run, seconds=seconds)}


def compare_engines(measurement: Measurement, workload: Workload) -> dict[str, Any]:
    """One model, by redserve's engine."""
    found: dict[str, Any] = {}
    for has_graphs in (False, True):
        engine = OnnxRuntimeEngine.load(
            workload.path,
            device=measurement.device,
            provider_options=workload.provider_options(measurement.device),
            cuda_graphs=has_graphs,
        )
        for rows in SIZES[:1] if measurement.is_quick else SIZES:
            given = workload.rows(rows)
            error_ratio = workload.error_ratio(engine.run(given)[0])
            times = timed(partial(engine.run, given), seconds=0.05 if measurement.is_quick else 0.2)
            found.setdefault(f"{rows} rows", {})["on" if has_graphs else "off"] = {"error_ratio": error_ratio, **times}
        engine.close()
    return found


def main() -> int:
    """Compare all in half precision."""
    measurement = Measurement(__file__, __doc__)
    chosen = workloads(measurement.options.models, measurement.device, precisions=("fp16",))
    fixed = [workload for workload in chosen if workload.name in FIXED_SIZES]
    for workload in chosen:
        measurement.cell(workload.title, partial(compare, measurement, workload))
    for workload in fixed:
        measurement.cell(f"{workload.title}, engine", partial(compare_engines, measurement, workload))
    variants = {"off": {"cuda_graphs": False}, "on": {"cuda_graphs": True}}
    if measurement.device == "cpu":
        del variants["on"]
    with Server(measurement.device) as server:
        for workload in fixed:
            served = partial(compare_settings, measurement, server, workload, variants)
            measurement.cell(f"{workload.title}, served", served)
    return measurement.end()


if __name__ == "__main__":
    sys.exit(main())
