"""A model that gives back an input of each datatype, and values at their extremes."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from engine.onnx_models import save

DATATYPES = {
    "BOOL": (TensorProto.BOOL, np.bool_),
    "UINT8": (TensorProto.UINT8, np.uint8),
    "UINT16": (TensorProto.UINT16, np.uint16),
    "UINT32": (TensorProto.UINT32, np.uint32),
    "UINT64": (TensorProto.UINT64, np.uint64),
    "INT8": (TensorProto.INT8, np.int8),
    "INT16": (TensorProto.INT16, np.int16),
    "INT32": (TensorProto.INT32, np.int32),
    "INT64": (TensorProto.INT64, np.int64),
    "FP16": (TensorProto.FLOAT16, np.float16),
    "FP32": (TensorProto.FLOAT, np.float32),
    "FP64": (TensorProto.DOUBLE, np.float64),
    "BYTES": (TensorProto.STRING, np.object_),
}


def everything(folder: Path) -> Path:
    """`out_FP32 = in_FP32`, and so on; two axes, the first of which counts rows."""
    return save(
        folder / "everything.onnx",
        [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in DATATYPES],
        {f"in_{name}": (code, ["batch", f"{name}_columns"]) for name, (code, _) in DATATYPES.items()},
        {f"out_{name}": (code, ["batch", f"{name}_columns"]) for name, (code, _) in DATATYPES.items()},
    )


def extremes(datatype: str) -> np.ndarray:
    """Two rows of two values, as far apart as the datatype allows; strings as a client has them, in bytes."""
    dtype = np.dtype(DATATYPES[datatype][1])
    if datatype == "BYTES":
        return np.array([["", "a\0b"], ["\u00e9\U0001f642", "x" * 300]], np.object_)
    if dtype.kind == "b":
        return np.array([[True, False], [False, False]])
    limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    return np.array([[limits.min, limits.max], [0, 1]], dtype)


def empty(datatype: str) -> np.ndarray:
    """Two rows of nothing."""
    return np.empty((2, 0), DATATYPES[datatype][1])
