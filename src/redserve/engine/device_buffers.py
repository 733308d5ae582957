"""I/O binding with buffers that stay: inputs of one shape have one place on the device, filled anew for each run.

tensors ─ the binding of their shape, free or made ─ fill its inputs in place ─ run ─ outputs, as arrays of their own

Runs that overlap have a binding each. ONNX Runtime copies the outputs to the CPU within the run, unless they are to
have a fixed place too; see `cuda_graphs.py`.
"""

import threading
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

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
        device: `cuda` or `cpu`: where the buffers are.
        device_id: On which one.
        copies: How inputs get there.
    """

    def __init__(
        self,
        ort: Any,
        session: Any,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        device: str,
        device_id: int,
        copies: Copies,
    ) -> None:
        self._ort = ort
        self._session = session
        self._inputs = inputs
        self._outputs = outputs
        self._place = device, device_id
        self._copies = copies
        self._lock = threading.Lock()
        self._free: dict[Hashable, list[Binding]] = {}  # by shapes, the least recently used first

    def run(self, tensors: Tensors, options: Any) -> list[Array]:
        """Run one batch with these run options.

        Raises:
            ModelError: An input is of another dtype than declared, which ONNX Runtime would take for noise.
        """
        shapes = tuple([tensors[spec.name].shape for spec in self._inputs])
        for spec in self._inputs:
            if tensors[spec.name].dtype != spec.dtype:
                given = dtype_name(tensors[spec.name].dtype)
                raise ModelError(f"input {spec.name!r} must be {dtype_name(spec.dtype)}, got {given}")
        with self._lock:
            free = self._free.get(shapes)
            binding = free.pop() if free else None
        if binding is None:
            binding = self.bind(tensors)
        answer = self.run_bound(binding, tensors, options)
        with self._lock:
            self._free[shapes] = [*self._free.pop(shapes, ()), binding]
            if len(self._free) > MAX_SHAPES:
                del self._free[next(iter(self._free))]
        return answer

    def bind(self, tensors: Tensors) -> "Binding":
        """Buffers on the device for inputs of these shapes."""
        device, device_id = self._place
        make = self._ort.OrtValue.ortvalue_from_shape_and_type
        values = {
            spec.name: make(list(tensors[spec.name].shape), spec.dtype.type, device, device_id) for spec in self._inputs
        }
        return Binding(self._session.io_binding(), values)

    def run_bound(self, binding: "Binding", tensors: Tensors, options: Any) -> list[Array]:
        """Run one batch in its buffers. That no graph is wanted is said since ONNX Runtime asks for it at some cost."""
        options.add_run_config_entry("gpu_graph_id", "-1")
        self.fill(binding, tensors)
        for spec in self._outputs:
            binding.io.bind_output(spec.name, "cpu")  # anew: else the next run writes to what this one answered
        self._session.run_with_iobinding(binding.io, options)
        return [value.numpy() for value in binding.io.get_outputs()]

    def fill(self, binding: "Binding", tensors: Tensors) -> None:
        """Put a batch into its buffers."""
        for name, value in binding.inputs.items():
            self._copies.fill(value, tensors[name])


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
