"""CUDA graphs: the kernels of a whole run, launched as one; a graph for each batch size.

first run of a size ─ run without a graph: the outputs' sizes ─ places for them ─ run again: captured ─┐
every other run ───── fill the inputs in place ────────────────────────────────────────────── replay ─┴─ read outputs

A graph reads and writes where it did when it was captured, belongs to the thread that captured it, and is of one shape.
So all places are kept, one thread does all runs of the session, and only models whose sizes are fixed but for the rows
may have graphs, in batches that are padded to few sizes. On the CPU everything goes the same way, without a graph.
"""

from collections.abc import Sequence
from itertools import count
from typing import Any

from redserve.engine.base import Batchability
from redserve.engine.bfloat16 import is_bfloat16
from redserve.engine.device_buffers import Binding, DeviceBuffers
from redserve.engine.own_thread import OwnThread
from redserve.engine.tensors import Array, Tensors, TensorSpec
from redserve.errors import ModelError

MAX_GRAPHS = 64
"""Of one session; each holds memory of the device for as long as the session lives."""


class GraphBuffers:
    """The buffers and graphs of one session; `run` may be called from several threads, and is done by one.

    Args:
        buffers: Of the session.
    """

    def __init__(self, buffers: DeviceBuffers) -> None:
        self._buffers = buffers
        self._thread = OwnThread("redserve-graphs")
        self._graphs: dict[tuple[tuple[int, ...], ...], _Graph] = {}
        self._ids = count(1)  # never one again: what was captured under it may read memory that is gone

    def run(self, tensors: Tensors, options: Any) -> list[Array]:
        """See `DeviceBuffers.run`.

        Raises:
            ModelError: It is of a new size, and there are `MAX_GRAPHS`.
        """
        return self._thread.call(lambda: self._run(tensors, options))

    def close(self) -> None:
        """Let the thread end."""
        self._thread.close()

    def _run(self, tensors: Tensors, options: Any) -> list[Array]:
        shapes = self._buffers.shapes_of(tensors)
        graph = self._graphs.get(shapes)
        if graph is None:
            if len(self._graphs) == MAX_GRAPHS:
                raise ModelError(f"{MAX_GRAPHS} batch sizes have a CUDA graph, and this would be one more")
            graph = _Graph(next(self._ids), self._buffers, tensors)
        answer = graph.run(tensors, options)
        self._graphs[shapes] = graph
        return answer


class _Graph:
    """One graph, not captured before its first run, and its places on the device."""

    def __init__(self, graph_id: int, buffers: DeviceBuffers, tensors: Tensors) -> None:
        self._id = graph_id
        self._buffers = buffers
        self._binding: Binding = buffers.bind(tensors)
        self._outputs: list[Any] = buffers.bind_outputs(self._binding, tensors)

    def run(self, tensors: Tensors, options: Any) -> list[Array]:
        """Capture it, or replay it."""
        self._buffers.fill(self._binding, tensors)
        options.add_run_config_entry("gpu_graph_id", str(self._id))
        self._buffers.start(self._binding, options)
        return self._buffers.read(self._outputs)


def graph_obstacle(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], batchability: Batchability) -> str:
    """What forbids a model CUDA graphs, in words; empty if nothing that can be told beforehand."""
    for spec in (*inputs, *outputs):
        if spec.dtype.kind == "O" or is_bfloat16(spec.dtype):
            return f"{spec} is text or bfloat16"
    is_whole = batchability.mode == "whole"
    for spec in inputs:
        for size in spec.shape[0 if is_whole else 1 :]:
            if not isinstance(size, int):
                why = batchability.reason if is_whole else "a graph has fixed sizes"
                return f"input {spec} leaves {size or 'a size'} open, and {why}"
    if batchability.mode == "dynamic" and batchability.note:
        return f"batches may not be padded: {batchability.note}"
    return ""
