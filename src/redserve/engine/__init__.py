"""What runs one batch: tensors, the `Engine` seam, and ONNX Runtime behind it."""

from redserve.engine.base import Batchability, Engine
from redserve.engine.curve import CurvePoint, choose_max_batch_size, measure_curve, warm_up
from redserve.engine.onnx_runtime import OnnxRuntimeEngine
from redserve.engine.row_runner import RowRunner
from redserve.engine.tensors import (
    Array,
    Tensors,
    TensorSpec,
    check_tensors,
    dtype_name,
    find_not_finite,
    group_of,
    join_rows,
    size_bytes_of,
    split_rows,
)

__all__ = [
    "Array",
    "Batchability",
    "CurvePoint",
    "Engine",
    "OnnxRuntimeEngine",
    "RowRunner",
    "TensorSpec",
    "Tensors",
    "check_tensors",
    "choose_max_batch_size",
    "dtype_name",
    "find_not_finite",
    "group_of",
    "join_rows",
    "measure_curve",
    "size_bytes_of",
    "split_rows",
    "warm_up",
]
