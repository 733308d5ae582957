"""ONNX Runtime by itself, without redserve around it: the ceiling that a server is held against."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime
from gpu.workloads import Workload

from redserve.engine.onnx_options import cuda_options, usable_cpus


def open_session(
    workload: Workload, device: str, *, config: Mapping[str, str] | None = None, cuda: Mapping[str, str] | None = None
) -> Any:
    """A session with the provider options that redserve chooses, and others beside them.

    Args:
        workload: The model.
        device: Where it runs.
        config: Entries of the session's configuration.
        cuda: Options of the CUDA execution provider, on a GPU.

    Raises:
        RuntimeError: It is not on the device.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1 if device == "cuda" else usable_cpus()
    for key, value in (config or {}).items():
        options.add_session_config_entry(key, value)
    providers: list[Any] = ["CPUExecutionProvider"]
    if device == "cuda":
        onnxruntime.preload_dlls()
        chosen = cuda_options(workload.provider_options(device), device_id=0)
        providers.insert(0, ("CUDAExecutionProvider", {**chosen, **(cuda or {})}))
    session = onnxruntime.InferenceSession(workload.path, options, providers=providers, enable_fallback=0)
    if device == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise RuntimeError(f"{workload.title} is on {session.get_providers()[0]}")
    return session


def from_host(session: Any, workload: Workload, rows: int) -> Callable[[], Any]:
    """A run from arrays to arrays, copies to the device and back included; call it for the first output."""
    given = workload.rows(rows)
    return lambda: session.run(None, given)[0]


def on_device(session: Any, workload: Workload, rows: int, device: str) -> Callable[[], Any]:
    """A run with inputs and outputs that stay on the device; nothing comes back."""
    binding, kept = session.io_binding(), []
    for name, values in workload.rows(rows).items():
        kept.append(onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(values), device, 0))
        binding.bind_ortvalue_input(name, kept[-1])
    for output in session.get_outputs():
        binding.bind_output(output.name, device)
    return lambda: (session.run_with_iobinding(binding), kept)
