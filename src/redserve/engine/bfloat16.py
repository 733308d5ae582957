"""bfloat16, the upper half of a float32: numpy has no such type, `ml_dtypes` lends it one.

ONNX Runtime takes and gives it as raw memory only, through I/O binding.
"""

import ctypes
import math
from typing import Any

import ml_dtypes
import numpy as np

BFLOAT16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)

ONNX_CODE = 16
"""Source: `onnx/onnx.proto`, TensorProto.DataType."""


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether these are floating-point numbers; to numpy itself bfloat16 is none."""
    return dtype.kind == "f" or is_bfloat16(dtype)


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Whether these are bfloat16."""
    return dtype.kind == "V" and dtype == BFLOAT16


def to_ort_value(ort: Any, array: np.ndarray[Any, np.dtype[Any]]) -> Any:
    """An `onnxruntime.OrtValue` that shares the memory of a C-contiguous array."""
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), ONNX_CODE)


def from_ort_value(value: Any) -> np.ndarray[Any, np.dtype[Any]]:
    """A copy of an `onnxruntime.OrtValue` in the CPU's memory, of this type or another."""
    if value.data_type() != "tensor(bfloat16)":
        array: np.ndarray[Any, np.dtype[Any]] = value.numpy()
        return array
    shape = value.shape()
    size = math.prod(shape)
    if not size:
        return np.empty(shape, BFLOAT16)
    halves = (ctypes.c_uint16 * size).from_address(value.data_ptr())
    return np.array(halves, np.uint16).view(BFLOAT16).reshape(shape)
