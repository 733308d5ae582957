"""An engine in the test's hands: `y = 2 x + 1`, with a memory of what it was given."""

from collections.abc import Callable

import numpy as np

from redserve.engine.base import Batchability
from redserve.engine.tensors import Array, Tensors, TensorSpec

DYNAMIC = Batchability(mode="dynamic", reason="the test says so")
WHOLE = Batchability(mode="whole", reason="the test says so")


def fixed(rows: int) -> Batchability:
    return Batchability(mode="fixed", rows=rows, reason="the test says so")


def double(tensors: Tensors) -> list[Array]:
    return [tensors["x"] * 2 + 1]


class PuppetEngine:
    """Fits `Engine`. Answers by `answer`; `batches` are copies of what it was given, `fed` the arrays themselves."""

    provider = "Puppet"

    def __init__(
        self,
        batchability: Batchability = DYNAMIC,
        answer: Callable[[Tensors], list[Array]] = double,
        inputs: tuple[TensorSpec, ...] = (TensorSpec("x", np.dtype(np.float32), ("batch", "columns")),),
        outputs: tuple[TensorSpec, ...] = (TensorSpec("y", np.dtype(np.float32), ("batch", "columns")),),
    ) -> None:
        self.batchability = batchability
        self.inputs = inputs
        self.outputs = outputs
        self.answer = answer
        self.batches: list[dict[str, Array]] = []
        self.fed: list[dict[str, Array]] = []
        self.interrupted_threads: list[int | None] = []

    def run(self, tensors: Tensors) -> list[Array]:
        self.batches.append({name: tensor.copy() for name, tensor in tensors.items()})
        self.fed.append(dict(tensors))
        return self.answer(tensors)

    def interrupt(self, thread_id: int | None = None) -> None:
        self.interrupted_threads.append(thread_id)

    def close(self) -> None:
        pass
