"""Opening an ONNX Runtime session: on the device asked for, or on the CPU with the reason why.

    file checks ─ CUDA in this build? ─ driver? ─ libraries? ─ came up? ─yes─> CUDA session
                        └──────────────────┴──────────┴───────────┴──no──> auto: CPU session and the reason; cuda: error

The runtime is handed in, so that one file imports it. What it prints on the way is told in the reason instead.
"""

import contextlib
import ctypes
import io
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from redserve.engine.onnx_options import SessionSettings, usable_cpus
from redserve.errors import ModelLoadError

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_SILENT, _WARNING = 4, 2
_LONGEST_MESSAGE = 4000  # a message may quote a client's text of any length, and the patterns below take its square
_one_session_at_a_time = (
    threading.Lock()
)  # making sessions in several threads has crashed (microsoft/onnxruntime#26610)


@dataclass(frozen=True)
class OpenedSession:
    """What came up.

    Attributes:
        session: An `onnxruntime.InferenceSession`.
        ort: The module `onnxruntime`.
        note: Why it is not on the GPU although one was wanted; or empty.
        threads: That share one run.
    """

    session: Any
    ort: Any
    note: str
    threads: int


def open_session(
    import_onnxruntime: Callable[[], Any],
    path: Path,
    *,
    device: Literal["auto", "cuda", "cpu"],
    threads: int | None,
    settings: SessionSettings,
    cuda: Mapping[str, str],
) -> OpenedSession:
    """Open a model file.

    Args:
        import_onnxruntime: Returns the module, or raises `ModelLoadError`; called once the file is known to be there.
        path: The `.onnx` file.
        device: `cuda` insists on the GPU, `auto` takes the CPU where none comes up.
        threads: That share one run; `None`: the cores this process may use, 1 on the GPU.
        settings: Of the session.
        cuda: Options of the CUDA execution provider.

    Raises:
        ModelLoadError: The file cannot be loaded, or not on this device.
    """
    _check_file(path)
    ort = import_onnxruntime()
    note = ""
    with _one_session_at_a_time:
        if device != "cpu":
            session, note = _cuda_session(ort, path, settings, threads or 1, cuda)
            if session is not None:
                return OpenedSession(session, ort, "", threads or 1)
            if device == "cuda":
                raise ModelLoadError(f"device=cuda, but {note}")
        threads = threads or usable_cpus()
        return OpenedSession(_session(ort, path, settings, threads, [_CPU]), ort, note, threads)


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise ModelLoadError(f"{path} is a directory, not an .onnx file")
        if not path.exists():
            raise ModelLoadError(f"{path} does not exist")
        if not path.is_file():
            raise ModelLoadError(f"{path} is no file")
        if path.stat().st_size == 0:
            raise ModelLoadError(f"{path} is empty")
        path.open("rb").close()
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror}") from error


def _session(ort: Any, path: Path, settings: SessionSettings, threads: int, providers: Sequence[object]) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, settings.optimization_level)
    options.execution_mode = getattr(ort.ExecutionMode, settings.execution_mode)
    for name, value in settings.attributes.items():
        setattr(options, name, value)
    for key, text in settings.config.items():
        options.add_session_config_entry(key, text)
    try:
        return ort.InferenceSession(path, options, providers=providers, enable_fallback=0)
    except Exception as error:
        raise ModelLoadError(f"{path} cannot be loaded: {one_line(error)}") from error


def _cuda_session(
    ort: Any, path: Path, settings: SessionSettings, threads: int, cuda: Mapping[str, str]
) -> tuple[Any, str]:
    """A session on the GPU and "", or `None` and why not."""
    if _CUDA not in ort.get_available_providers():
        return None, "this build of ONNX Runtime has no CUDA: install redserve[gpu] in place of redserve[cpu]"
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            return None, f"no NVIDIA driver is found ({error})"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        ort.preload_dlls()
    ort.set_default_logger_severity(_SILENT)  # the provider logs its own failure to stderr; it is told in the note
    try:
        session = _session(ort, path, settings, threads, [(_CUDA, dict(cuda)), _CPU])
    except ModelLoadError as error:
        if "enable_cuda_graph" in cuda:  # mostly a model that cannot be captured: not a matter of the device
            raise ModelLoadError(f"cuda_graphs: {error}") from error
        return None, f"on CUDA {error}"
    finally:
        ort.set_default_logger_severity(_WARNING)
    if session.get_providers()[0] == _CUDA:
        return session, ""
    missing = next((line for line in printed.getvalue().splitlines() if line.startswith("Failed to load")), "")
    return None, f"CUDA did not come up: {missing or 'ONNX Runtime does not say why'}; install redserve[gpu]"


def one_line(error: Exception) -> str:
    """ONNX Runtime's message without its code, source places and C++ signatures: the sentence for people."""
    text = " ".join(str(error)[:_LONGEST_MESSAGE].split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : (\w+) : ", "", text)
    text = re.sub(r"^Load model from .*? failed:", "", text)
    text = re.sub(r"\S*/onnxruntime_src/\S+:\d+ (?:[^()]*\([^()]*(?:\([^()]*\)[^()]*)*\)(?: const)? )?", "", text)
    return text if len(text) <= 400 else text[:399] + "…"
