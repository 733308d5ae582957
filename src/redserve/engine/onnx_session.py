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
from typing import Any, Literal, TypeAlias

from redserve.engine.onnx_options import SessionSettings, session_settings, usable_cpus
from redserve.engine.tensors import TensorSpec
from redserve.errors import ModelLoadError

Device: TypeAlias = Literal["auto", "cuda", "tensorrt", "cpu"]

_CPU, _CUDA, _TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
_NAMES = {_CUDA: "CUDA", _TENSORRT: "TensorRT"}
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
    device: Device,
    threads: int | None,
    settings: SessionSettings,
    cuda: Mapping[str, str],
    tensorrt: Mapping[str, str] | None = None,
) -> OpenedSession:
    """Open a model file.

    Args:
        import_onnxruntime: Returns the module, or raises `ModelLoadError`; called once the file is known to be there.
        path: The `.onnx` file.
        device: `cuda` insists on the GPU, `tensorrt` on that provider, `auto` takes the CPU where no GPU comes up.
        threads: That share one run; `None`: the cores this process may use, 1 on the GPU.
        settings: Of the session.
        cuda: Options of the CUDA execution provider.
        tensorrt: Of the TensorRT execution provider, with `device="tensorrt"`.

    Raises:
        ModelLoadError: The file cannot be loaded, or not on this device.
    """
    _check_file(path)
    ort = import_onnxruntime()
    note = ""
    with _one_session_at_a_time:
        if device != "cpu":
            providers = {_CUDA: dict(cuda)}
            if device == "tensorrt":
                providers = {_TENSORRT: dict(tensorrt or {}), **providers}
            session, note = _gpu_session(ort, path, settings, threads or 1, providers)
            if session is not None:
                return OpenedSession(session, ort, "", threads or 1)
            if device != "auto":
                raise ModelLoadError(f"device={device}, but {note}")
        threads = threads or usable_cpus()
        return OpenedSession(_session(ort, path, settings, threads, [_CPU]), ort, note, threads)


def read_inputs(import_onnxruntime: Callable[[], Any], path: Path) -> tuple[TensorSpec, ...]:
    """What a model file takes, by a session on the CPU that is not kept.

    Raises:
        ModelLoadError: It cannot be loaded.
    """
    settings = session_settings({"graph_optimization_level": "disable"})
    opened = open_session(import_onnxruntime, path, device="cpu", threads=1, settings=settings, cuda={})
    return specs_of("input", opened.session.get_inputs())


def specs_of(side: str, arguments: Sequence[Any]) -> tuple[TensorSpec, ...]:
    """What ONNX Runtime says of the inputs, or the outputs, of a session.

    Raises:
        ModelLoadError: One cannot be served.
    """
    try:
        return tuple(TensorSpec.from_onnx(argument.name, argument.type, argument.shape) for argument in arguments)
    except ValueError as error:
        raise ModelLoadError(f"{side} {error}") from error


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise ModelLoadError(f"{path} is a directory, not an .onnx file: serve one of models with --repository")
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


def _gpu_session(
    ort: Any, path: Path, settings: SessionSettings, threads: int, providers: Mapping[str, dict[str, str]]
) -> tuple[Any, str]:
    """A session on the first of these providers and "", or `None` and why not."""
    wanted = next(iter(providers))
    name = _NAMES[wanted]
    if wanted not in ort.get_available_providers():
        return None, f"this build of ONNX Runtime has no {name}: install redserve[gpu] in place of redserve[cpu]"
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
        session = _session(ort, path, settings, threads, [*providers.items(), _CPU])
    except ModelLoadError as error:
        if "enable_cuda_graph" in providers[_CUDA]:  # mostly a model that cannot be captured, which no device changes
            raise ModelLoadError(f"cuda_graphs: {error}") from error
        return None, f"on {name} {error}"
    finally:
        ort.set_default_logger_severity(_WARNING)
    if session.get_providers()[0] == wanted:
        return session, ""
    missing = next((line for line in printed.getvalue().splitlines() if line.startswith("Failed to load")), "")
    why = _what_the_loader_says(ort, name) or missing or "ONNX Runtime does not say why"
    bring = "its libraries come with redserve[gpu], the driver with the machine"
    if wanted != _CUDA:
        bring = "install the TensorRT libraries, which redserve[gpu] does not bring"
    return None, f"{name} did not come up: {why}; {bring}"


def _what_the_loader_says(ort: Any, name: str) -> str:
    """Why a provider's library cannot be loaded, which ONNX Runtime writes to its log alone; empty if it can be."""
    library = Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{name.lower()}.so"
    if sys.platform != "linux":
        return ""
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error).replace(str(library), library.name)
    return ""


def one_line(error: Exception) -> str:
    """ONNX Runtime's message without its code, source places and C++ signatures: the sentence for people."""
    text = " ".join(str(error)[:_LONGEST_MESSAGE].split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : (\w+) : ", "", text)
    text = re.sub(r"^Load model from .*? failed:", "", text)
    text = re.sub(r"\S*/onnxruntime_src/\S+:\d+ (?:[^()]*\([^()]*(?:\([^()]*\)[^()]*)*\)(?: const)? )?", "", text)
    return text if len(text) <= 400 else text[:399] + "…"
