"""Are the answers right on this device, in every precision, at batch sizes of all kinds, and which nodes run elsewhere?

    cd benchmarks && python -m gpu.answers --device cuda --models DIR --out OUT [--quick]

By the engine that the server uses. The perceptron is compared with numpy in double precision, the others with ONNX
Runtime on the CPU. A node that is not on the GPU is named.
"""

import sys
from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import onnxruntime
from gpu.measurement import Measurement
from gpu.sessions import open_session
from gpu.workloads import Workload, workloads

from redserve.engine import OnnxRuntimeEngine, RowRunner

SIZES = (1, 2, 3, 8, 31, 32, 64)


def check(measurement: Measurement, workload: Workload) -> dict[str, Any]:
    """One model."""
    options = workload.provider_options(measurement.device)
    engine = OnnxRuntimeEngine.load(workload.path, device=measurement.device, provider_options=options)
    sizes = SIZES[:4] if measurement.is_quick else SIZES
    errors = {}
    for rows in sizes:
        (found,) = engine.run(workload.rows(rows))
        errors[rows] = workload.error_ratio(found)
    runner, given = RowRunner(engine, max(sizes)), workload.rows(max(sizes))
    requests = [{name: values[row : row + 1] for name, values in given.items()} for row in range(max(sizes))]
    gathered = np.concatenate([answer[0] for answer in runner(requests) if not isinstance(answer, Exception)])
    return {
        "provider": engine.provider,
        "batchability": engine.batchability.mode,
        "worst_error_ratio": max(*errors.values(), workload.error_ratio(gathered)),
        "error_ratio_by_rows": errors,
        "nodes_by_provider": placement(workload, measurement.device),
    }


def placement(workload: Workload, device: str) -> dict[str, Any]:
    """How many nodes are where; those that the CPU runs for a GPU by kind."""
    onnxruntime.set_default_logger_severity(3)
    session = open_session(workload, device, config={"session.record_ep_graph_assignment_info": "1"})
    counts: Counter[str] = Counter()
    elsewhere: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        for node in part.get_nodes():
            counts[part.ep_name] += 1
            if device == "cuda" and part.ep_name != "CUDAExecutionProvider":
                elsewhere[node.op_type] += 1
    return {**counts, "elsewhere": dict(elsewhere)}


def main() -> int:
    """Check all."""
    measurement = Measurement(__file__, __doc__)
    for workload in workloads(measurement.options.models, measurement.device):
        measurement.cell(workload.title, partial(check, measurement, workload))
    return measurement.end()


if __name__ == "__main__":
    sys.exit(main())
