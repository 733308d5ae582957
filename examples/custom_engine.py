"""Serve a model that is not ONNX: any object with a few attributes and a `run` is an engine.

    python examples/custom_engine.py

    curl -s http://127.0.0.1:8000/predict -H 'Content-Type: application/json' -d '{"instances": [[3, 4], [5, 12]]}'
    {"predictions":[5.0,13.0]}

Batching, checking, metrics and `/docs` come from the server; the engine only turns a batch into its results.
"""

from collections.abc import Sequence

import numpy as np
import uvicorn

from redserve.engine import Array, Batchability, Tensors, TensorSpec
from redserve.server import create_app


class Hypotenuse:
    """`sides (rows, 2) float32` gives `length (rows,) float32`."""

    inputs: Sequence[TensorSpec] = (TensorSpec("sides", np.dtype(np.float32), ("batch", 2)),)
    outputs: Sequence[TensorSpec] = (TensorSpec("length", np.dtype(np.float32), ("batch",)),)
    batchability = Batchability(mode="dynamic", reason="each row is computed by itself")
    provider = "numpy"

    def run(self, tensors: Tensors) -> list[Array]:
        """One batch, in the batcher's thread; results must not share memory with the inputs."""
        return [np.hypot(tensors["sides"][:, 0], tensors["sides"][:, 1])]

    def interrupt(self, thread_id: int | None = None) -> None:
        """Nothing to interrupt: a run takes microseconds."""

    def close(self) -> None:
        """Nothing to free."""


app = create_app(engines={"hypotenuse": Hypotenuse})

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=8000, access_log=False)
