"""Models without a model: specifications, and the codec that knows them."""

import json

import ml_dtypes
import numpy as np

from redserve.engine.tensors import TensorSpec
from redserve.protocol import OpenInference

F32 = np.dtype(np.float32)
DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "FP32": F32,
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}
X = TensorSpec("x", F32, ("batch", 2))
AGE = TensorSpec("age", DTYPES["INT8"], ("batch",))
TEXT = TensorSpec("text", DTYPES["BYTES"], ("batch", 1))
Y = TensorSpec("y", F32, ("batch", 2))
LABEL = TensorSpec("label", DTYPES["INT64"], ("batch",))
WORD = TensorSpec("word", DTYPES["BYTES"], ("batch",))
HALF = TensorSpec("half", DTYPES["FP16"], ("batch", 2))


def codec_of(inputs=(X,), outputs=(Y,), *, row_wise=True, labels=None):
    return OpenInference(
        inputs, outputs, model_name="digits", model_version="3", row_wise=row_wise, labels=labels or {}
    )


def tensor(dtype, shape, name="x"):
    """A codec of one input, and one output of the same kind."""
    spec = TensorSpec(name, DTYPES[dtype], shape)
    return codec_of([spec], [spec], row_wise=False)


def body_of(*inputs, **fields):
    """The JSON of a request."""
    return json.dumps({"inputs": list(inputs)} | fields).encode()


def x_of(**fields):
    """An entry of `inputs` that is right, but for `fields`; `None` takes a field away."""
    entry = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]} | fields
    return {key: value for key, value in entry.items() if value is not None}


def binary_x(size_bytes, **fields):
    return x_of(data=None, parameters={"binary_data_size": size_bytes}, **fields)


def decode_with_tail(codec, head, tail):
    """Decode JSON `head` with the binary data `tail` behind it."""
    return codec.decode(head + tail, json_length=str(len(head)).encode())


def parts_of(encoded):
    """The JSON of an answer, and the bytes behind it."""
    headers = dict(encoded.headers)
    json_bytes = int(headers.get(b"inference-header-content-length", len(encoded.body)))
    assert encoded.content_type == (b"application/octet-stream" if headers else b"application/json")
    return json.loads(encoded.body[:json_bytes]), encoded.body[json_bytes:]
