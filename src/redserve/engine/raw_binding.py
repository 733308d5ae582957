"""I/O binding of a model that takes or answers bfloat16, as raw memory, made anew for each run."""

from collections.abc import Sequence
from typing import Any

from redserve.engine.bfloat16 import from_ort_value, is_bfloat16, to_ort_value
from redserve.engine.tensors import Array, Tensors, TensorSpec


class RawBinding:
    """Runs one session; `run` may be called from several threads at once."""

    def __init__(self, ort: Any, session: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        self._ort = ort
        self._session = session
        self._inputs = inputs
        self._outputs = outputs

    def run(self, tensors: Tensors, options: Any) -> list[Array]:
        """Run one batch with these run options.

        That no CUDA graph is wanted is said because ONNX Runtime 1.32 otherwise spends 30 us on an exception when it
        looks. Source: `benchmarks/results/engine_cost.json`.
        """
        options.add_run_config_entry("gpu_graph_id", "-1")
        binding = self._session.io_binding()
        for spec in self._inputs:
            if is_bfloat16(spec.dtype):
                binding.bind_ortvalue_input(spec.name, to_ort_value(self._ort, tensors[spec.name]))
            else:
                binding.bind_cpu_input(spec.name, tensors[spec.name])
        for spec in self._outputs:
            binding.bind_output(spec.name, "cpu")
        self._session.run_with_iobinding(binding, options)
        return [from_ort_value(value) for value in binding.get_outputs()]
