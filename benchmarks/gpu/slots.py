"""What does it bring that a batch is copied while another one is computed?

    cd benchmarks && python -m gpu.slots --device cuda --models DIR --out OUT [--quick]

A server with one batch of a model in progress at a time, with two, and with two instances, which have a session each;
asked in binary in a closed loop, in turns. `busy_ratio` is the time of runs by the clock: above 1, two were under way.
"""

import sys
from functools import partial

from gpu.compared import compare_settings
from gpu.measurement import Measurement
from gpu.server import Server
from gpu.workloads import workloads

VARIANTS = {"one slot": {"slots": 1}, "two slots": {"slots": 2}, "two instances": {"instances": 2, "slots": 1}}


def main() -> int:
    """Compare all in half precision."""
    measurement = Measurement(__file__, __doc__)
    with Server(measurement.device) as server:
        for workload in workloads(measurement.options.models, measurement.device, precisions=("fp16",)):
            measurement.cell(workload.title, partial(compare_settings, measurement, server, workload, VARIANTS))
    return measurement.end()


if __name__ == "__main__":
    sys.exit(main())
