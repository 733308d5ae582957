"""redserve's own server around an engine that sleeps 20 ms and 1 ms a row: a model of a known speed that burns no CPU.

    python benchmarks/load/sleeping_server.py --port 0 --slo-ms 150        settings as for `redserve serve`

So the client and the server's own work have both cores, and a measured goodput is the policy's, not the machine's.
"""

import os
import sys
import time

import numpy as np

from redserve.engine import Array, Batchability, Tensors, TensorSpec
from redserve.server import Settings, create_app
from redserve.server.logs import configure_logging
from redserve.server.runner import Server

FIXED_S, PER_ROW_S, MAX_BATCH_SIZE = 0.020, 0.001, 16


class Sleeping:
    """`x (rows,) float32` gives `y = 2 x`, after a sleep without the interpreter's lock."""

    inputs = (TensorSpec("x", np.dtype(np.float32), ("batch",)),)
    outputs = (TensorSpec("y", np.dtype(np.float32), ("batch",)),)
    batchability = Batchability(mode="dynamic", reason="each row by itself")
    provider = "none"

    def run(self, tensors: Tensors) -> list[Array]:
        """Sleep, then answer."""
        rows = tensors["x"]
        time.sleep(FIXED_S + PER_ROW_S * len(rows))
        return [2 * rows]

    def interrupt(self, thread_id: int | None = None) -> None:
        """No run is long."""

    def close(self) -> None:
        """Nothing to free."""


def main() -> None:
    """Serve until a signal."""
    names = [name.removeprefix("--").replace("-", "_") for name in sys.argv[1::2]]
    settings = Settings.load({"max_batch_size": MAX_BATCH_SIZE} | dict(zip(names, sys.argv[2::2], strict=True)))
    configure_logging(settings.log_level, "uvicorn.error")
    server = Server(create_app(settings, engines={"sleeping": Sleeping}), settings)
    server.run()
    sys.stdout.flush()
    os._exit(server.exit_status)


if __name__ == "__main__":
    main()
