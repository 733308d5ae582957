"""The Open Inference Protocol's names of element types.

Source: `kserve/open-inference-protocol: specification/protocol/inference_rest.md`; BF16 is Triton's.

BF16 has no type in numpy; here it is that of `ml_dtypes`.
"""

from typing import Any

import numpy as np

from redserve.engine.bfloat16 import is_bfloat16

_DATATYPES = {
    np.dtype(np.bool_): "BOOL",
    np.dtype(np.uint8): "UINT8",
    np.dtype(np.uint16): "UINT16",
    np.dtype(np.uint32): "UINT32",
    np.dtype(np.uint64): "UINT64",
    np.dtype(np.int8): "INT8",
    np.dtype(np.int16): "INT16",
    np.dtype(np.int32): "INT32",
    np.dtype(np.int64): "INT64",
    np.dtype(np.float16): "FP16",
    np.dtype(np.float32): "FP32",
    np.dtype(np.float64): "FP64",
    np.dtype(np.object_): "BYTES",
}

BINARY_ONLY = frozenset({"FP16", "BF16"})
"""JSON may not say these, neither in a request nor in an answer."""


def datatype_of(dtype: np.dtype[Any]) -> str:
    """What the protocol calls `dtype`: `FP32`; strings are `BYTES`.

    Raises:
        ValueError: It has no name for it.
    """
    datatype = _DATATYPES.get(dtype)
    if datatype is not None:
        return datatype
    if is_bfloat16(dtype):
        return "BF16"
    raise ValueError(f"the Open Inference Protocol has no datatype for {dtype}")
