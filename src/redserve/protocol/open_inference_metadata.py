"""What the Open Inference Protocol says of servers and models, as objects ready for JSON; and its errors.

Source: `kserve/open-inference-protocol: specification/protocol/inference_rest.md`; `triton-inference-server/server:
docs/protocol/extension_model_configuration.md`. The fields of the configuration are those that perf_analyzer reads.
"""

from collections.abc import Sequence
from typing import Any

import orjson

from redserve.engine.tensors import TensorSpec
from redserve.errors import BadRequest, RedserveError
from redserve.protocol.datatypes import datatype_of

PLATFORM = "onnxruntime_onnx"
"""As Triton calls it; the protocol's own table says `onnx_onnxv1`, and clients look at neither."""


def server_metadata(version: str, extensions: Sequence[str]) -> dict[str, Any]:
    """The answer of `/v2`."""
    return {"name": "redserve", "version": version, "extensions": list(extensions)}


def model_metadata(
    name: str,
    versions: Sequence[str],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    row_wise: bool,
    platform: str = PLATFORM,
) -> dict[str, Any]:
    """The answer of `/v2/models/{name}`: sizes that vary are -1, that of a row-wise model's axis 0 among them."""
    return {
        "name": name,
        "versions": list(versions),
        "platform": platform,
        "inputs": [_tensor_metadata(spec, row_wise) for spec in inputs],
        "outputs": [_tensor_metadata(spec, row_wise) for spec in outputs],
    }


def model_config(
    name: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    max_batch_size: int,
    max_queue_delay_s: float = 0.0,
    instances: int = 1,
    platform: str = PLATFORM,
) -> dict[str, Any]:
    """The answer of `/v2/models/{name}/config`.

    Args:
        name: Of the model.
        inputs: What it takes.
        outputs: What it returns.
        max_batch_size: Rows run together, at most; 0 is a model that is not row-wise. Where there are rows, `dims`
            leave their axis out.
        max_queue_delay_s: Longest the oldest row waits for company.
        instances: Engines that run it side by side.
        platform: What runs it.
    """
    skip_dims = 1 if max_batch_size else 0
    config: dict[str, Any] = {
        "name": name,
        "platform": platform,
        "backend": platform.partition("_")[0],
        "max_batch_size": max_batch_size,
        "input": [_tensor_config(spec, skip_dims) for spec in inputs],
        "output": [_tensor_config(spec, skip_dims) for spec in outputs],
        "instance_group": [{"name": name, "count": instances}],
        "model_transaction_policy": {"decoupled": False},
    }
    if max_batch_size:
        config["dynamic_batching"] = {"max_queue_delay_microseconds": round(1_000_000 * max_queue_delay_s)}
    return config


def error_body(error: RedserveError, *, max_characters: int = 1_000) -> bytes:
    """The body of every answer below `/v2` that is an error: `{"error": "text"}`."""
    text = str(error)[:max_characters]
    if isinstance(error, BadRequest) and error.where is not None:
        text += f" (at {error.where[:max_characters]})"
    return orjson.dumps({"error": text})


def _tensor_metadata(spec: TensorSpec, row_wise: bool) -> dict[str, Any]:
    shape = _sizes(spec)
    if row_wise and shape:
        shape[0] = -1
    return {"name": spec.name, "datatype": datatype_of(spec.dtype), "shape": shape}


def _tensor_config(spec: TensorSpec, skip_dims: int) -> dict[str, Any]:
    datatype = datatype_of(spec.dtype)
    data_type = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
    return {"name": spec.name, "data_type": data_type, "dims": _sizes(spec)[skip_dims:]}


def _sizes(spec: TensorSpec) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in spec.shape]
