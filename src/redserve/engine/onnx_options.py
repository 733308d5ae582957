"""Which options of ONNX Runtime may be set, and what they are by default. ONNX Runtime takes any key without a word.

defaults <─ session_options, provider_options of the settings; an unknown key or value is a ModelLoadError
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from redserve.errors import ModelLoadError

Option: TypeAlias = str | int | float | bool

_OPTIMIZATION_LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}
_EXECUTION_MODES = {"sequential": "ORT_SEQUENTIAL", "parallel": "ORT_PARALLEL"}
_NUMBERS = {"inter_op_num_threads": 1, "log_severity_level": 4}  # 4: only what ends the process; errors are raised
_SWITCHES = {
    "enable_cpu_mem_arena": True,
    "enable_mem_pattern": True,
    "enable_mem_reuse": True,
    "use_deterministic_compute": False,
}
_CONFIG_KEYS = frozenset(
    {
        "optimization.enable_gelu_approximation",
        "session.disable_cpu_ep_fallback",
        "session.disable_prepacking",
        "session.dynamic_block_base",
        "session.enable_quant_qdq_cleanup",
        "session.force_spinning_stop",
        "session.inter_op.allow_spinning",
        "session.intra_op.allow_spinning",
        "session.intra_op_thread_affinities",
        "session.qdqisint8allowed",
        "session.set_denormal_as_zero",
        "session.use_device_allocator_for_initializers",
    }
)
_CONFIG_DEFAULTS = {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}

_CUDA_KEYS = frozenset(
    {
        "arena_extend_strategy",
        "cudnn_conv1d_pad_to_nc1d",
        "cudnn_conv_algo_search",
        "cudnn_conv_use_max_workspace",
        "do_copy_in_default_stream",
        "enable_cudnn",
        "fuse_conv_bias",
        "gpu_mem_limit",
        "prefer_nhwc",
        "sdpa_kernel",
        "tunable_op_enable",
        "tunable_op_max_tuning_duration_ms",
        "tunable_op_tuning_enable",
        "use_ep_level_unified_stream",
        "use_tf32",
    }
)
_CUDA_DEFAULTS = {
    "arena_extend_strategy": "kSameAsRequested",  # the default doubles: two batches of images can ask for twice the GPU
    "cudnn_conv_algo_search": "HEURISTIC",  # the default measures anew for each batch size: seconds, under traffic
    "do_copy_in_default_stream": "1",  # 0 can race (microsoft/onnxruntime#4829)
}


@dataclass(frozen=True, kw_only=True)
class SessionSettings:
    """What a session is made with.

    Attributes:
        attributes: Of `SessionOptions`.
        optimization_level: The name of a `GraphOptimizationLevel`.
        execution_mode: The name of an `ExecutionMode`.
        config: Session config entries.
    """

    attributes: Mapping[str, int | bool]
    optimization_level: str
    execution_mode: str
    config: Mapping[str, str]


def session_settings(given: Mapping[str, Option]) -> SessionSettings:
    """The defaults, overruled by what is given: attributes and config entries of a session in one mapping.

    Raises:
        ModelLoadError: An unknown key, or a value of the wrong kind; names the key and what is allowed.
    """
    named = {"execution_mode", "graph_optimization_level"}
    check_keys("session_options", given, named | _NUMBERS.keys() | _SWITCHES.keys() | _CONFIG_KEYS)
    attributes: dict[str, int | bool] = {**_NUMBERS, **_SWITCHES}
    config = dict(_CONFIG_DEFAULTS)
    for key, value in given.items():
        if key in _CONFIG_KEYS:
            config[key] = as_text(value)
        elif key in _SWITCHES:
            if not isinstance(value, bool):
                raise ModelLoadError(f"session_options: {key} must be true or false, got {value!r}")
            attributes[key] = value
        elif key in _NUMBERS:
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ModelLoadError(f"session_options: {key} must be a number >= 0, got {value!r}")
            attributes[key] = value
    return SessionSettings(
        attributes=attributes,
        optimization_level=_choice(given, "graph_optimization_level", _OPTIMIZATION_LEVELS, default="all"),
        execution_mode=_choice(given, "execution_mode", _EXECUTION_MODES, default="sequential"),
        config=config,
    )


def cuda_options(given: Mapping[str, Option], *, device_id: int, graphs: bool = False) -> dict[str, str]:
    """Options of the CUDA execution provider: the defaults, overruled by what is given.

    Args:
        given: By ONNX Runtime's names.
        device_id: Which GPU.
        graphs: Whether runs may be captured.

    Raises:
        ModelLoadError: An unknown key; names it and what is allowed.
    """
    check_keys("provider_options", given, _CUDA_KEYS)
    own = {"device_id": str(device_id)} | ({"enable_cuda_graph": "1"} if graphs else {})
    return {**_CUDA_DEFAULTS, **{key: as_text(value) for key, value in given.items()}, **own}


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores this process may use, at least 1: its affinity, cut to the container's quota if there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cgroup.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))


def check_keys(where: str, given: Mapping[str, Option], allowed: set[str] | frozenset[str]) -> None:
    """Refuse what ONNX Runtime would not know.

    Raises:
        ModelLoadError: An unknown key; names it and what is allowed.
    """
    for key in given:
        if key not in allowed:
            raise ModelLoadError(f"{where}: unknown key {key!r}; allowed are {', '.join(sorted(allowed))}")


def _choice(given: Mapping[str, Option], key: str, choices: Mapping[str, str], *, default: str) -> str:
    value = given.get(key, default)
    if value not in choices:
        raise ModelLoadError(f"session_options: {key} must be one of {', '.join(choices)}, got {value!r}")
    return choices[str(value)]


def as_text(value: Option) -> str:
    """ONNX Runtime reads switches as 0 and 1."""
    return str(int(value)) if isinstance(value, bool) else str(value)
