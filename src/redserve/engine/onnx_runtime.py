"""ONNX Runtime behind the `Engine` seam; the only file that imports it, when the first model is loaded.

    file ─ checks ─ CUDA session, or CPU session and why ─ specs ─ batchability probe ─> OnnxRuntimeEngine
    tensors ─ run (CPU) or device buffers (GPU) ─> arrays; every error as ModelError

Nothing falls back silently: not ONNX Runtime at construction, nor in the middle of a run (`enable_fallback=0`), and
`provider` is what the session says it uses, never the list of what the build could use.
"""

import os
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from redserve.engine.arena import ArenaWatch
from redserve.engine.base import Batchability
from redserve.engine.batchability import judge_batchability
from redserve.engine.binding import choose_binding
from redserve.engine.cuda_graphs import GraphBuffers, graph_obstacle
from redserve.engine.cudart import find_cudart
from redserve.engine.curve import MAX_MEASURED_ROWS
from redserve.engine.device_buffers import DeviceBuffers, RuntimeCopies
from redserve.engine.onnx_options import Option, cuda_options, session_settings, usable_cpus
from redserve.engine.onnx_session import Device, OpenedSession, one_line, open_session, read_inputs, specs_of
from redserve.engine.raw_binding import RawBinding
from redserve.engine.samples import find_sampler
from redserve.engine.tensorrt import split_options, tensorrt_options
from redserve.engine.tensors import Array, Tensors
from redserve.errors import ModelError, ModelLoadError

_CPU = "CPUExecutionProvider"
_FEW_CORES = 2
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
        shares_cores: Whether a run takes all the cores that this process may use, and those are one or two. Of more the
            event loop takes a small share, and there is room for it beside a run. Other processes are not looked at.
        computes_in_caller: Whether the thread that calls takes its share of each run: on the CPU, one node at a time.
        slots: Runs that are worth having in progress at once: on a GPU two, so that one copies while another computes.
        is_on_gpu: Whether the provider is that of a GPU.
        arena: What decides, on a GPU, when memory is given back.
        empty: Makes a batch buffer, from shape and dtype: on a GPU in page-locked memory, where there is any.
    """

    def __init__(
        self,
        opened: OpenedSession,
        path: Path,
        *,
        device_id: int = 0,
        io_binding: bool | None = None,
        pinned: bool = True,
    ) -> None:
        """Wrap a session whose batchability is not judged yet; use `load`."""
        session = opened.session
        self.path = path
        self.inputs = specs_of("input", session.get_inputs())
        self.outputs = tuple(replace(spec, is_exact=False) for spec in specs_of("output", session.get_outputs()))
        if not self.outputs:
            raise ModelLoadError("the model has no outputs")
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
        self.is_on_gpu = self.provider != _CPU
        sequential = opened.ort.ExecutionMode.ORT_SEQUENTIAL
        self.computes_in_caller = not self.is_on_gpu and session.get_session_options().execution_mode == sequential
        self.slots = 2 if self.is_on_gpu else 1
        self.arena = ArenaWatch(f"gpu:{device_id}") if self.is_on_gpu else None
        cudart = find_cudart(device_id) if self.is_on_gpu else None
        self.empty: Callable[[tuple[int, ...], np.dtype[Any]], Array] = np.empty
        if cudart is not None and pinned:
            self.empty = cudart.empty
        self._bound: RawBinding | DeviceBuffers | GraphBuffers | None = choose_binding(
            opened.ort,
            session,
            self.inputs,
            self.outputs,
            is_wanted=self.is_on_gpu if io_binding is None else io_binding,
            device=("cuda", device_id) if self.is_on_gpu else ("cpu", 0),
            copies=cudart or RuntimeCopies(),
            arena=self.arena,
        )
        has_fixed_sizes = all(type(size) is int for spec in self.inputs for size in spec.shape[1:])
        self.can_run_inline = has_fixed_sizes and not self.is_on_gpu
        self.shares_cores = not self.is_on_gpu and self.intra_op_threads >= usable_cpus() <= _FEW_CORES

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        device: Device = "auto",
        device_id: int = 0,
        intra_op_threads: int | None = None,
        provider_options: Mapping[str, Option] | None = None,
        session_options: Mapping[str, Option] | None = None,
        batching: Literal["auto", "on", "off"] = "auto",
        io_binding: bool | None = None,
        pinned: bool = True,
        cuda_graphs: bool = False,
        largest_batch: int = MAX_MEASURED_ROWS,
        freed: Callable[[], None] | None = None,
    ) -> "OnnxRuntimeEngine":
        """Load a model and find out how it can be batched; blocks, for seconds with a large model.

        Args:
            path: An `.onnx` file; external data lies beside it.
            device: `cuda` insists on the GPU, `auto` takes the CPU where none comes up and says why. `tensorrt` insists
                on that provider, with CUDA for what it does not take.
            device_id: Which GPU.
            intra_op_threads: Threads that share one run; `None`: the cores this process may use, 1 on the GPU.
            provider_options: Of the CUDA execution provider, by ONNX Runtime's names; with `tensorrt`, those that begin
                with `trt_` are of that one.
            session_options: Of the session, by ONNX Runtime's names.
            batching: See `judge_batchability`.
            io_binding: Bind inputs to buffers on the device instead of passing them; `None`: on the GPU only. Where an
                input or output is bfloat16 they are bound in any case, and where one is text never.
            pinned: Make batch buffers in page-locked memory, on the GPU.
            cuda_graphs: On the GPU, launch each run as one graph, of its batch size; batches have to be padded to few.
                With `device="cpu"` everything is as if there were graphs.
            largest_batch: Rows that TensorRT is to build for, where nothing but the rows is left open.
            freed: Called once the session is gone and has given its memory back, from any thread.

        Raises:
            ModelLoadError: The file, the device or an option is wrong, or ONNX Runtime is not installed; one line.
            ValueError: `device`, `device_id` or `intra_op_threads` is no possible value.
        """
        if device not in ("auto", "cuda", "tensorrt", "cpu"):
            raise ValueError(f"device must be auto, cuda, tensorrt or cpu, got {device!r}")
        if device_id < 0 or (intra_op_threads is not None and intra_op_threads < 1):
            raise ValueError(f"device_id must be >= 0 and intra_op_threads >= 1, got {device_id}, {intra_op_threads}")
        if device == "cpu" and provider_options:
            raise ModelLoadError("provider_options are for CUDA; the CPU execution provider has none")
        if device == "tensorrt" and cuda_graphs:
            raise ModelLoadError("cuda_graphs: they are of the CUDA execution provider, not of TensorRT")
        settings = session_settings(session_options or {})
        given, tensorrt = provider_options or {}, None
        path = Path(path)
        if device == "tensorrt":
            own, given = split_options(given)
            tensorrt = tensorrt_options(
                own, device_id=device_id, inputs=read_inputs(_import_onnxruntime, path), rows=largest_batch
            )
        cuda = cuda_options(given, device_id=device_id, graphs=cuda_graphs)
        opened = open_session(
            _import_onnxruntime,
            path,
            device=device,
            threads=intra_op_threads,
            settings=settings,
            cuda=cuda,
            tensorrt=tensorrt,
        )
        if freed is not None:
            weakref.finalize(opened.session, freed)
        has_graphs = cuda_graphs and (device == "cpu" or opened.session.get_providers()[0] != _CPU)
        try:
            engine = cls(opened, path, device_id=device_id, io_binding=has_graphs or io_binding, pinned=pinned)
            engine.batchability = judge_batchability(
                engine.run, engine.inputs, engine.outputs, interrupt=engine.interrupt, batching=batching
            )
            if has_graphs:
                engine._use_graphs()
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
            bound = self._bound
            if bound is not None:
                return bound.run(tensors, options)
            answer = session.run(self._output_names, dict(tensors), options)
        except ModelError:
            raise
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
        bound, self._session, self._bound = self._bound, None, None
        if isinstance(bound, GraphBuffers):
            bound.close()

    def _use_graphs(self) -> None:
        """From now on each batch size has a CUDA graph; tries one.

        Raises:
            ModelLoadError: The model cannot have any.
        """
        obstacle = graph_obstacle(self.inputs, self.outputs, self.batchability)
        if obstacle:
            raise ModelLoadError(f"cuda_graphs: {obstacle}")
        if isinstance(self._bound, DeviceBuffers):
            self._bound = GraphBuffers(self._bound)
        self.can_run_inline, self.slots, self.arena = False, 1, None
        try:
            find_sampler(self.run, self.inputs, rows=self.batchability.rows or 1)
        except ModelError as error:
            raise ModelLoadError(f"cuda_graphs: {error}") from error


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        install = "install redserve[cpu], or redserve[gpu] for NVIDIA GPUs"
        raise ModelLoadError(f"ONNX Runtime cannot be imported ({error}): {install}") from error
    return onnxruntime
