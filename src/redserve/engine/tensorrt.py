"""What the TensorRT execution provider is told: the options that begin with `trt_`, and the shapes it is to build for.

options given ─ `trt_...` ─> TensorRT     inputs, rows ─ sizes fixed but for the rows? ─> one profile: 1 row to the most
              └ the rest ──> CUDA, for the nodes that TensorRT does not take

Without a profile TensorRT builds its engine anew, for minutes, whenever a larger batch comes.
"""

from collections.abc import Mapping, Sequence

from redserve.engine.onnx_options import Option, as_text, check_keys
from redserve.engine.tensors import TensorSpec

PROBED_ROWS = 3
"""Have to be in the profile: so many are run to find out whether the model can be batched."""

_KEYS = frozenset(
    {
        "trt_auxiliary_streams",
        "trt_bf16_enable",
        "trt_build_heuristics_enable",
        "trt_builder_optimization_level",
        "trt_context_memory_sharing_enable",
        "trt_detailed_build_log",
        "trt_dump_ep_context_model",
        "trt_engine_cache_enable",
        "trt_engine_cache_path",
        "trt_engine_cache_prefix",
        "trt_engine_hw_compatible",
        "trt_ep_context_embed_mode",
        "trt_ep_context_file_path",
        "trt_extra_plugin_lib_paths",
        "trt_force_sequential_engine_build",
        "trt_force_timing_cache",
        "trt_fp16_enable",
        "trt_int8_calibration_table_name",
        "trt_int8_enable",
        "trt_int8_use_native_calibration_table",
        "trt_layer_norm_fp32_fallback",
        "trt_max_partition_iterations",
        "trt_max_workspace_size",
        "trt_min_subgraph_size",
        "trt_op_types_to_exclude",
        "trt_profile_max_shapes",
        "trt_profile_min_shapes",
        "trt_profile_opt_shapes",
        "trt_sparsity_enable",
        "trt_tactic_sources",
        "trt_timing_cache_enable",
        "trt_timing_cache_path",
        "trt_weight_stripped_engine_enable",
    }
)


def split_options(given: Mapping[str, Option]) -> tuple[dict[str, Option], dict[str, Option]]:
    """Those of TensorRT, and those of CUDA."""
    own = {key: value for key, value in given.items() if key.startswith("trt_")}
    return own, {key: value for key, value in given.items() if key not in own}


def tensorrt_options(
    given: Mapping[str, Option], *, device_id: int, inputs: Sequence[TensorSpec], rows: int
) -> dict[str, str]:
    """Options of the TensorRT execution provider.

    Args:
        given: By ONNX Runtime's names.
        device_id: Which GPU.
        inputs: The model's.
        rows: Of its largest batch.

    Raises:
        ModelLoadError: An unknown key; names it and what is allowed.
    """
    check_keys("provider_options", given, _KEYS)
    profile = {} if any(key.startswith("trt_profile_") for key in given) else profile_of(inputs, rows=rows)
    return {**profile, **{key: as_text(value) for key, value in given.items()}, "device_id": str(device_id)}


def profile_of(inputs: Sequence[TensorSpec], *, rows: int) -> dict[str, str]:
    """From one row to `rows`, made fastest for the most; nothing where other sizes are open, or none is."""
    if any(not spec.shape or not all(isinstance(size, int) for size in spec.shape[1:]) for spec in inputs):
        return {}
    if all(isinstance(spec.shape[0], int) for spec in inputs):
        return {}
    most = max(rows, PROBED_ROWS)
    return {
        f"trt_profile_{name}_shapes": ",".join(_shape(spec, count) for spec in inputs)
        for name, count in (("min", 1), ("opt", most), ("max", most))
    }


def _shape(spec: TensorSpec, rows: int) -> str:
    """`x:8x3x224x224`."""
    sizes = [size if isinstance(size, int) else rows for size in spec.shape]
    return f"{spec.name}:{'x'.join(map(str, sizes))}"
