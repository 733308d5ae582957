"""What runs one batch: tensors, the `Engine` seam, and ONNX Runtime behind it."""

from redserve.engine.base import Batchability, Engine
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
    "Engine",
    "RowRunner",
    "TensorSpec",
    "Tensors",
    "check_tensors",
    "dtype_name",
    "find_not_finite",
    "group_of",
    "join_rows",
    "size_bytes_of",
    "split_rows",
]
