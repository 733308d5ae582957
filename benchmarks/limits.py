"""How much of what is possible does the server reach: of its HTTP alone, of ASGI, of the model without any server?

    python benchmarks/limits.py [--quick] [--rounds 5]        needs redserve[dev]; writes benchmarks/results/limits.json

In a closed loop, as beside the peers (`peers/run.py`): the small perceptron beside the fast door that answers a
constant, which parses, counts and writes; the same by the ASGI door under uvicorn beside an ASGI callable that reads
the body and answers a constant; one connection beside that callable; and the wide perceptron, 128 connections, beside
`session.run` of full batches with as many threads in a process without a server, while the server idles. The two of a
pair take turns; every ratio is of neighbours in time. The sender shares the cores with the server, not with
`session.run`.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "peers"))

import drivers
import numpy as np
import onnxruntime
from contestants import CONTESTANTS, Contestant
from load.constant_server import PREDICTIONS
from rounds import Extent, ask
from running import Running
from workload import Workload

from redserve.bench.environment import environment

RESULTS = Path(__file__).parent / "results" / "limits.json"
CONSTANT_SERVER = Path(__file__).parent / "load" / "constant_server.py"
MAX_BATCH_SIZE = 128
THREADS = 2

Found = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One pair.

    Attributes:
        name: What is compared.
        workload: The model's name.
        connections: Of the closed loop.
        ours: The server.
        setting: Of it.
        beside: What answers a constant; `None` for the model without a server.
    """

    name: str
    workload: str
    connections: int
    ours: str
    setting: dict[str, Any]
    beside: Contestant | None


def constant(kind: str) -> Contestant:
    """`load/constant_server.py`."""
    return Contestant(
        name=f"constant-{kind}", doc="", command=lambda start: [str(start.python), str(CONSTANT_SERVER), kind]
    )


WIDE = {"intra_op_threads": THREADS, "max_batch_size": MAX_BATCH_SIZE}
LIMITS = (
    Limit(
        name="small, 64 connections, of the fast door that answers a constant",
        workload="small",
        connections=64,
        ours="redserve",
        setting={},
        beside=constant("fast"),
    ),
    Limit(
        name="small, 64 connections, by the ASGI door, of an ASGI callable that reads the body",
        workload="small",
        connections=64,
        ours="redserve-asgi",
        setting={},
        beside=constant("asgi"),
    ),
    Limit(
        name="small, 1 connection, of an ASGI callable that reads the body",
        workload="small",
        connections=1,
        ours="redserve",
        setting={},
        beside=constant("asgi"),
    ),
    Limit(
        name=f"wide, 128 connections, of session.run with {MAX_BATCH_SIZE} rows",
        workload="wide",
        connections=128,
        ours="redserve",
        setting=WIDE,
        beside=None,
    ),
)


def offline(workload: Workload, seconds: float) -> Callable[[], Found]:
    """Rows a second of full batches, by a session as the server has one."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(workload.model, options, providers=["CPUExecutionProvider"])
    rows = [json.loads(body)["instances"][0] for body in workload.bodies]
    batch = np.asarray((rows * MAX_BATCH_SIZE)[:MAX_BATCH_SIZE], np.float32)
    answer = session.run(None, {"x": batch})[0]
    if not np.allclose(answer[: len(workload.right)], workload.right[:MAX_BATCH_SIZE], rtol=1e-4, atol=1e-4):
        raise SystemExit("session.run answers something else")

    def run() -> Found:
        count, began_s = 0, time.perf_counter()
        while (took_s := time.perf_counter() - began_s) < seconds:
            session.run(None, {"x": batch})
            count += MAX_BATCH_SIZE
        return {"per_s": round(count / took_s, 1)}

    return run


def compare(limit: Limit, extent: Extent) -> Found:
    """The rounds of a pair."""
    workload = Workload.of(limit.workload)
    extent = replace(extent, connections=limit.connections)
    constants = replace(workload, right=np.asarray(PREDICTIONS * len(workload.bodies)))
    rounds = []
    with ExitStack() as stack:
        server = stack.enter_context(Running(CONTESTANTS[limit.ours], workload, limit.setting))
        if limit.beside is None:
            beside = offline(workload, extent.seconds)
        else:
            other = stack.enter_context(Running(limit.beside, constants, {}))

            def beside() -> Found:
                return ask(other, constants, extent, seconds=extent.seconds)

        for _ in range(extent.rounds):
            ours = ask(server, workload, extent, seconds=extent.seconds)
            rounds.append({"ours": ours, "limit": beside()})
        workload.check(server.port)
    key = "p50_ms" if limit.connections == 1 else "per_s"
    ratios = [one["ours"][key] / one["limit"][key] for one in rounds]
    print(f"{limit.name}: {key} {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)
    return {"name": limit.name, "setting": limit.setting, "ratio_of": key, "rounds": rounds}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a moment of each; write nothing")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    extent = Extent(
        driver=drivers.pick(None),
        connections=64,
        rounds=1 if options.quick else options.rounds,
        seconds=0.3 if options.quick else 3.0,
        warm_up_s=0.1 if options.quick else 0.5,
        tuning_s=0,
        rates=(),
        open_s=0,
        tries=1 if options.quick else 3,
    )
    pairs = [compare(limit, extent) for limit in LIMITS]
    if not options.quick:
        document = {
            "question": (__doc__ or "").partition("\n")[0],
            "command": f"python benchmarks/limits.py --rounds {extent.rounds}",
            "machine": environment(),
            "driver": extent.driver,
            "pairs": pairs,
        }
        RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
