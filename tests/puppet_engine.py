"""An engine that tests play by hand: doubles its rows, and can be gated, broken or slow to load."""

import threading
from collections.abc import Callable, Sequence

import numpy as np

from redserve.engine.base import Batchability
from redserve.engine.tensors import Array, Tensors, TensorSpec
from redserve.errors import ModelError

WAIT_S = 20.0


class PuppetEngine:
    """`x (rows, 2) float32` gives `y = 2 x`, and raises where a row begins with -1.

    Attributes:
        began: Set when a run begins, also one that waits at the gate.
        ran_rows: Rows of each run, in order.
    """

    inputs: Sequence[TensorSpec] = (TensorSpec("x", np.dtype(np.float32), ("batch", 2)),)
    outputs: Sequence[TensorSpec] = (TensorSpec("y", np.dtype(np.float32), ("batch", 2)),)
    provider = "PuppetProvider"
    is_on_gpu = False

    def __init__(
        self, batchability: Batchability | None = None, change: Callable[[Array], Array] | None = None
    ) -> None:
        self.batchability = batchability or Batchability(mode="dynamic", reason="rows do not mix")
        self._is_shut = False
        self._passes = threading.Semaphore(0)
        self.began = threading.Event()
        self.ran_rows: list[int] = []
        self.is_closed = False
        self._change = change or (lambda rows: 2 * rows)

    def run(self, tensors: Tensors) -> list[Array]:
        self.began.set()
        if self._is_shut and not self._passes.acquire(timeout=WAIT_S):
            raise TimeoutError("the test never opened the gate")
        rows = tensors["x"]
        self.ran_rows.append(len(rows))
        if (rows[:, 0] == -1).any():
            raise ModelError("a row begins with -1")
        return [self._change(rows)]

    def interrupt(self, thread_id: int | None = None) -> None:
        self.open()

    def close(self) -> None:
        self.is_closed = True

    def shut(self) -> None:
        """From now on runs wait at the gate."""
        self.began.clear()
        self._passes = threading.Semaphore(0)
        self._is_shut = True

    def let_one_run(self) -> None:
        """The run at the gate passes; the next one waits there again."""
        self.began.clear()
        self._passes.release()

    def open(self) -> None:
        """Whatever waits at the gate runs, and so does all that comes."""
        self._is_shut = False
        self._passes.release(100)
