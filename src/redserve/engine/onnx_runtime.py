"""ONNX Runtime behind the `Engine` seam; the only file that imports it, when the first model is loaded.

    file ─ checks ─ CUDA session, or CPU session and why ─ specs ─ batchability probe ─> OnnxRuntimeEngine
    tensors ─ run (CPU) or I/O binding (GPU) ─> arrays; every error as ModelError

Nothing falls back silently: not ONNX Runtime at construction, nor in the middle of a run (`enable_fallback=0`), and
`provider` is what the session says it uses, never the list of what the build could use.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from redserve.engine.base import Batchability
from redserve.engine.batchability import judge_batchability
from redserve.engine.onnx_options import Option, cuda_options, session_settings
from redserve.engine.onnx_session import OpenedSession, one_line, open_session
from redserve.engine.tensors import Array, Tensors, TensorSpec
from redserve.errors import ModelError, ModelLoadError

_UNSET_VERSION = 9223372036854775807


class OnnxRuntimeEngine:
    """A loaded ONNX model. `run` may be called from several threads at once.

    Attributes:
        inputs: What the model takes.
        outputs: What it answers.
        batchability: How requests may share a run, and why.
        path: The file it came from.
        provider: The execution provider that came up, such as `CPUExecutionProvider`.
        provider_note: Why not the GPU, where `device="auto"` found none; else empty.
        metadata: The model's own key-value pairs.
        producer: What wrote the model; may be empty.
        description: What the model says of itself; may be empty.
        model_version: The number its producer gave it, or `None`.
        intra_op_threads: Threads that share one run.
        can_run_inline: Whether a run takes as long as those of the warm-up, and ends when it is told to: on the CPU,
            with no size but the rows left to the request.
    """

    def __init__(self, opened: OpenedSession, path: Path, *, io_binding: bool | None = None) -> None:
        """Wrap a session whose batchability is not judged yet; use `load`."""
        session = opened.session
        self.path = path
        self.inputs = _specs(path, "input", session.get_inputs())
        self.outputs = tuple(replace(spec, is_exact=False) for spec in _specs(path, "output", session.get_outputs()))
        if not self.outputs:
            raise ModelLoadError(f"{path}: the model has no outputs")
        self.provider: str = session.get_providers()[0]
        self.provider_note = opened.note
        self.intra_op_threads = opened.threads
        facts = session.get_modelmeta()
        self.metadata: dict[str, str] = dict(facts.custom_metadata_map)
        self.producer: str = facts.producer_name
        self.description: str = facts.description
        self.model_version: int | None = None if facts.version == _UNSET_VERSION else facts.version
        self.batchability = Batchability(mode="whole", reason="not judged yet")
        self._session: Any = session
        self._new_run_options = opened.ort.RunOptions
        self._output_names = [spec.name for spec in self.outputs]
        self._running: dict[int, Any] = {}
        can_bind = all(spec.dtype.kind != "O" for spec in (*self.inputs, *self.outputs))
        has_fixed_sizes = all(type(size) is int for spec in self.inputs for size in spec.shape[1:])
        self.can_run_inline = has_fixed_sizes and self.provider == "CPUExecutionProvider"
        self._binds = can_bind and (self.provider != "CPUExecutionProvider" if io_binding is None else io_binding)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        device: Literal["auto", "cuda", "cpu"] = "auto",
        device_id: int = 0,
        intra_op_threads: int | None = None,
        provider_options: Mapping[str, Option] | None = None,
        session_options: Mapping[str, Option] | None = None,
        batching: Literal["auto", "on", "off"] = "auto",
        io_binding: bool | None = None,
    ) -> "OnnxRuntimeEngine":
        """Load a model and find out how it can be batched; blocks, for seconds with a large model.

        Args:
            path: An `.onnx` file; external data lies beside it.
            device: `cuda` insists on the GPU, `auto` takes the CPU where none comes up and says why.
            device_id: Which GPU.
            intra_op_threads: Threads that share one run; `None`: the cores this process may use, 1 on the GPU.
            provider_options: Of the CUDA execution provider, by ONNX Runtime's names.
            session_options: Of the session, by ONNX Runtime's names.
            batching: See `judge_batchability`.
            io_binding: Bind inputs and outputs instead of passing them; `None`: on the GPU only.

        Raises:
            ModelLoadError: The file, the device or an option is wrong, or ONNX Runtime is not installed; one line.
            ValueError: `device`, `device_id` or `intra_op_threads` is no possible value.
        """
        if device not in ("auto", "cuda", "cpu"):
            raise ValueError(f"device must be auto, cuda or cpu, got {device!r}")
        if device_id < 0 or (intra_op_threads is not None and intra_op_threads < 1):
            raise ValueError(f"device_id must be >= 0 and intra_op_threads >= 1, got {device_id}, {intra_op_threads}")
        if device == "cpu" and provider_options:
            raise ModelLoadError("provider_options are for CUDA; the CPU execution provider has none")
        settings = session_settings(session_options or {})
        cuda = cuda_options(provider_options or {}, device_id=device_id)
        path = Path(path)
        opened = open_session(
            _import_onnxruntime, path, device=device, threads=intra_op_threads, settings=settings, cuda=cuda
        )
        engine = cls(opened, path, io_binding=io_binding)
        try:
            engine.batchability = judge_batchability(engine.run, engine.inputs, engine.outputs, batching=batching)
        except ModelLoadError as error:
            raise ModelLoadError(f"{path}: {error}") from error
        return engine

    def run(self, tensors: Tensors) -> list[Array]:
        """Run one batch; the contract is `Engine.run`'s.

        Raises:
            ModelError: The run failed, was interrupted, or the engine is closed.
        """
        session = self._session
        if session is None:
            raise ModelError("the engine is closed")
        options = self._new_run_options()  # its `terminate` flag stays set once set, so each run has its own
        thread_id = threading.get_ident()
        self._running[thread_id] = options
        try:
            if self._binds:
                answer = self._run_bound(session, tensors, options)
            else:
                answer = session.run(self._output_names, dict(tensors), options)
        except Exception as error:  # ONNX Runtime's errors have no common base, and some are ValueError or RuntimeError
            if options.terminate:
                raise ModelError("the run was interrupted") from error
            raise ModelError(one_line(error)) from error
        finally:
            del self._running[thread_id]
        return [np.asarray(output) for output in answer]

    def interrupt(self, thread_id: int | None = None) -> None:
        """End the run in progress in that thread (`None`: all) at its next node; one long kernel runs to its end."""
        running = dict(self._running)
        for options in running.values() if thread_id is None else filter(None, [running.get(thread_id)]):
            options.terminate = True

    def close(self) -> None:
        """Let go of the session; its memory is freed when the last run has ended."""
        self._session = None

    def _run_bound(self, session: Any, tensors: Tensors, options: Any) -> Sequence[Any]:
        """Copy inputs straight from the batch buffers to the device and outputs back; the runtime waits for both.

        A binding of its own for each run costs 1 us and lets runs overlap, which a kept one does not. That no CUDA
        graph is wanted is said because ONNX Runtime 1.32 otherwise spends 30 us on an exception when it looks.
        Source: `benchmarks/results/engine_cost.json`.
        """
        options.add_run_config_entry("gpu_graph_id", "-1")
        binding = session.io_binding()
        for spec in self.inputs:
            binding.bind_cpu_input(spec.name, tensors[spec.name])
        for name in self._output_names:
            binding.bind_output(name, "cpu")
        session.run_with_iobinding(binding, options)
        answer: Sequence[Any] = binding.copy_outputs_to_cpu()
        return answer


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        install = "install redserve[cpu], or redserve[gpu] for NVIDIA GPUs"
        raise ModelLoadError(f"ONNX Runtime cannot be imported ({error}): {install}") from error
    return onnxruntime


def _specs(path: Path, side: str, arguments: Sequence[Any]) -> tuple[TensorSpec, ...]:
    try:
        return tuple(TensorSpec.from_onnx(argument.name, argument.type, argument.shape) for argument in arguments)
    except ValueError as error:
        raise ModelLoadError(f"{path}: {side} {error}") from error
