"""I/O binding with buffers that stay: inputs of one shape have one place on the device, filled anew for each run.

tensors ─ the binding of their shape, free or made ─ fill its inputs in place ─ run ─ outputs, as arrays of their own

Runs that overlap have a binding each. ONNX Runtime copies the outputs to the CPU within the run, unless they are to
have a fixed place too; see `cuda_graphs.py`.
"""

import threading
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from redserve.engine.arena import ArenaWatch
from redserve.engine.tensors import Array, Tensors, TensorSpec, dtype_name
from redserve.errors import ModelError

MAX_SHAPES = 16
"""Whose buffers are kept; those least recently used are freed."""


class Copies(Protocol):
    """How numbers get to an `onnxruntime.OrtValue` on a device, and back."""

    def fill(self, value: Any, array: Array) -> None:
        """Write `array` to `value`, which is of its size, and wait until it is there."""

    def read(self, value: Any, dtype: "np.dtype[Any]") -> Array:
        """What `value` holds, in memory of its own."""


class RuntimeCopies:
    """ONNX Runtime's own; they keep the interpreter's lock, so nothing else runs meanwhile."""

    def fill(self, value: Any, array: Array) -> None:
        """See `Copies`."""
        value.update_inplace(array)

    def read(self, value: Any, dtype: "np.dtype[Any]") -> Array:
        """See `Copies`."""
        return np.array(value.numpy(), dtype)


class DeviceBuffers:
    """The buffers of one session; `run` may be called from several threads at once.

    Args:
        ort: The module `onnxruntime`.
        session: That runs.
        inputs: What it takes; neither text nor bfloat16, which cannot be bound like this.
        outputs: What it answers.
        device: Where the buffers are: `cuda` or `cpu`, and which.
        copies: How inputs get there.
        arena: Whose memory is given back after rare large batches; `None`: never.
    """

    def __init__(
        self,
        ort: Any,
        session: Any,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        device: tuple[str, int],
        copies: Copies,
        arena: ArenaWatch | None = None,
    ) -> None:
        self._ort = ort
        self._session = session
        self._inputs = inputs
        self._outputs = outputs
        self._device = device
        self._copies = copies
        self._arena = arena
        self._lock = threading.Lock()
        self._free: dict[Hashable, list[Binding]] = {}  # by shapes, the least recently used first

    def run(self, tensors: Tensors, options: Any) -> list[Array]:
        """Run one batch with these run options.

        Raises:
            ModelError: An input is of another dtype than declared, which ONNX Runtime would take for noise.
        """
        shapes = self.shapes_of(tensors)
        with self._lock:
            free = self._free.get(shapes)
            binding = free.pop() if free else None
        if binding is None:
            binding = self.bind(tensors)
        self.fill(binding, tensors)
        for spec in self._outputs:
            binding.io.bind_output(spec.name, "cpu")  # anew: else the next run writes to what this one answered
        options.add_run_config_entry("gpu_graph_id", "-1")  # said, since ONNX Runtime looks for it at some cost
        arena = self._arena
        if arena is not None and arena.gives_back(sum([tensor.nbytes for tensor in tensors.values()])):
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", arena.device)
        self.start(binding, options)
        answer = [value.numpy() for value in binding.io.get_outputs()]
        with self._lock:
            self._free[shapes] = [*self._free.pop(shapes, ()), binding]
            if len(self._free) > MAX_SHAPES:
                del self._free[next(iter(self._free))]
        return answer

    def shapes_of(self, tensors: Tensors) -> tuple[tuple[int, ...], ...]:
        """Of the inputs, in their order.

        Raises:
            ModelError: See `run`.
        """
        for spec in self._inputs:
            if tensors[spec.name].dtype != spec.dtype:
                given = dtype_name(tensors[spec.name].dtype)
                raise ModelError(f"input {spec.name!r} must be {dtype_name(spec.dtype)}, got {given}")
        return tuple([tensors[spec.name].shape for spec in self._inputs])

    def bind(self, tensors: Tensors) -> "Binding":
        """Places on the device for inputs of these shapes."""
        inputs = {spec.name: self._place_for(tensors[spec.name].shape, spec) for spec in self._inputs}
        return Binding(self._session.io_binding(), inputs)

    def bind_outputs(self, binding: "Binding", tensors: Tensors) -> list[Any]:
        """Places for its outputs as well; one run, without a graph, tells how large they are."""
        self.fill(binding, tensors)
        for spec in self._outputs:
            binding.io.bind_output(spec.name, "cpu")
        options = self._ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", "-1")
        self.start(binding, options)
        sizes = [tuple(value.shape()) for value in binding.io.get_outputs()]
        outputs = [self._place_for(size, spec) for size, spec in zip(sizes, self._outputs, strict=True)]
        for spec, value in zip(self._outputs, outputs, strict=True):
            binding.io.bind_ortvalue_output(spec.name, value)
        return outputs

    def fill(self, binding: "Binding", tensors: Tensors) -> None:
        """Put a batch into its places."""
        for name, value in binding.inputs.items():
            self._copies.fill(value, tensors[name])

    def start(self, binding: "Binding", options: Any) -> None:
        """Run what is bound; ends when it is done."""
        self._session.run_with_iobinding(binding.io, options)

    def read(self, outputs: Sequence[Any]) -> list[Array]:
        """What is in these places, as arrays of their own."""
        return [self._copies.read(value, spec.dtype) for value, spec in zip(outputs, self._outputs, strict=True)]

    def _place_for(self, shape: tuple[int, ...], spec: TensorSpec) -> Any:
        return self._ort.OrtValue.ortvalue_from_shape_and_type(list(shape), spec.dtype.type, *self._device)


class Binding:
    """An `onnxruntime.IOBinding` and what is bound to it.

    Attributes:
        io: The binding.
        inputs: Their places on the device, by name.
    """

    def __init__(self, io: Any, inputs: Mapping[str, Any]) -> None:
        self.io = io
        self.inputs = inputs
        for name, value in inputs.items():
            io.bind_ortvalue_input(name, value)
