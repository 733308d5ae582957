"""What an overload is made of: a model, the server around it, rows to ask with and their right answers."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from load.models import HEAVY_IN, write_heavy
from load.sleeping_server import FIXED_S, MAX_BATCH_SIZE, PER_ROW_S
from load.wire import post

from redserve.engine.onnx_runtime import OnnxRuntimeEngine

POOL = 64
TOLERANCE = 1e-4
NUMBERS = 1_000_000  # float32 tells them apart, and their doubles


@dataclass(frozen=True)
class Workload:
    """One model under load, a row a request.

    Attributes:
        name: For people.
        model: What it is, for people.
        program: The server's command line, or `None` for `redserve serve`.
        arguments: Its first arguments.
        capacity_per_s: Rows it can run in a second; `None` where that is to be measured.
        body: The body of request number so and so.
        is_right: Whether a body answers request number so and so.
    """

    name: str
    model: str
    program: Sequence[str] | None
    arguments: Sequence[str]
    capacity_per_s: float | None
    body: Callable[[int], bytes]
    is_right: Callable[[int, bytes], bool]

    def request(self, headers: str = "") -> Callable[[int], bytes]:
        """What to send as request number so and so."""
        return lambda number: post(self.body(number), path="/predict", headers=headers)


def sleeping() -> Workload:
    """A known speed without CPU: what a policy can reach, and no other limit."""
    return Workload(
        name="sleeping",
        model=f"sleeps {1000 * FIXED_S:g} ms + {1000 * PER_ROW_S:g} ms a row, at most {MAX_BATCH_SIZE} rows",
        program=[sys.executable, str(Path(__file__).parent / "sleeping_server.py")],
        arguments=[],
        capacity_per_s=MAX_BATCH_SIZE / (FIXED_S + PER_ROW_S * MAX_BATCH_SIZE),
        body=lambda number: b'{"instances":[%d]}' % (number % NUMBERS),
        is_right=lambda number, body: body == b'{"predictions":[%d.0]}' % (2 * (number % NUMBERS)),
    )


def heavy(folder: Path) -> Workload:
    """ONNX Runtime on one thread, which shares the machine with the server and the client."""
    path = write_heavy(folder)
    rows = np.random.default_rng(1).standard_normal((POOL, HEAVY_IN)).astype(np.float32)
    engine = OnnxRuntimeEngine.load(path, device="cpu", intra_op_threads=1)
    right = engine.run({"x": rows})[0]
    engine.close()
    bodies = [orjson.dumps({"instances": [row.tolist()]}) for row in rows]

    def is_right(number: int, body: bytes) -> bool:
        found = np.asarray(orjson.loads(body)["predictions"])
        expected = right[number % POOL : number % POOL + 1]
        return found.shape == expected.shape and np.allclose(found, expected, rtol=0, atol=TOLERANCE)

    return Workload(
        name="onnx",
        model=f"an ONNX model on one thread, at most {MAX_BATCH_SIZE} rows",
        program=None,
        arguments=[str(path), "--intra-op-threads", "1", "--max-batch-size", str(MAX_BATCH_SIZE)],
        capacity_per_s=None,
        body=lambda number: bodies[number % POOL],
        is_right=is_right,
    )
