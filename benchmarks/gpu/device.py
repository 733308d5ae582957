"""The device: what it is, and how much of its memory is taken. A CPU stands in with the memory of a process."""

import importlib.metadata
import os
import subprocess
from collections.abc import Callable
from typing import Any

from load.watched import held_by

from redserve.bench.environment import environment

_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "nvidia-ml-py")
_LIBRARIES = ("nvidia-cublas", "nvidia-cuda-runtime", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12")


def describe_device(device: str) -> dict[str, Any]:
    """Its kind, name, driver and memory; of a GPU by NVML, else by nvidia-smi."""
    if device == "cpu":
        return {"kind": "cpu", "name": environment()["machine"]}
    try:
        nvml, handle = open_nvml()
        facts = {
            "name": nvml.nvmlDeviceGetName(handle),
            "driver": nvml.nvmlSystemGetDriverVersion(),
            "memory_bytes": nvml.nvmlDeviceGetMemoryInfo(handle).total,
        }
    except Exception as error:
        facts = {"name": _by_nvidia_smi(), "without_nvml": f"{type(error).__name__}: {error}"}
    return {"kind": "cuda", **facts, "host": environment()["machine"]}


def _by_nvidia_smi() -> str:
    """Name and driver; a figure without them is better than none."""
    asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        return f"not told by nvidia-smi: {error}"


def versions() -> dict[str, str]:
    """Of everything that may explain a number later."""
    found = environment()
    for package in (*_RUNTIMES, *_LIBRARIES):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def memory_used(device: str, pid: int) -> Callable[[], int]:
    """Says, each time anew, how many bytes of a GPU are taken by whomever, or of the CPU's memory by a process."""
    if device == "cpu":
        return lambda: held_by(pid).rss_bytes
    nvml, handle = open_nvml()
    return lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).used)


def open_nvml() -> tuple[Any, Any]:
    """NVML and its handle of the first GPU that CUDA shows; by NVML's own numbers where CUDA hides none."""
    import pynvml  # an NVIDIA driver is needed to do anything with it

    pynvml.nvmlInit()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    if visible.startswith(("GPU-", "MIG-")):
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(visible)
    return pynvml, pynvml.nvmlDeviceGetHandleByIndex(int(visible or 0))
