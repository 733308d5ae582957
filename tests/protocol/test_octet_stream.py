import json

import numpy as np
import pytest

from redserve.engine.tensors import TensorSpec
from redserve.errors import BadRequest, UnsupportedMediaType
from redserve.protocol import InferRequest, OctetStream, PredictJson

F32 = np.dtype(np.float32)
Y = TensorSpec("y", F32, ("batch", 2))


def codec_of(*inputs, row_wise=True):
    return OctetStream(inputs, row_wise=row_wise, json=PredictJson(inputs, [Y], row_wise=row_wise))


pixels = codec_of(TensorSpec("pixels", F32, ("batch", 2, 3)))


def test_rows_lie_back_to_back():
    values = np.arange(12, dtype=F32)
    body = values.tobytes()

    request = pixels.decode(body)

    assert request.form == "values"
    assert np.array_equal(request.tensors["pixels"], values.reshape(2, 2, 3))
    assert np.shares_memory(request.tensors["pixels"], np.frombuffer(body, np.uint8))


def test_the_type_is_the_models():
    codec = codec_of(TensorSpec("bytes", np.dtype(np.uint8), ("batch",)))

    assert codec.decode(b"\1\2\xff").tensors["bytes"].tolist() == [1, 2, 255]


@pytest.mark.parametrize("size", [0, 1, 23, 25])
def test_the_body_is_whole_rows(size):
    with pytest.raises(
        BadRequest, match=f"takes 24 bytes, the body has {size}: {size // 24} rows and {size % 24} bytes"
    ):
        pixels.decode(bytes(size))


def test_a_boolean_is_a_byte_of_0_or_1():
    with pytest.raises(BadRequest, match="neither 0 nor 1"):
        codec_of(TensorSpec("flags", np.dtype(bool), ("batch", 2))).decode(b"\1\3")


@pytest.mark.parametrize(
    "inputs",
    [
        [TensorSpec("x", F32, ("batch", None))],
        [TensorSpec("x", F32, ("batch", "n"))],
        [TensorSpec("x", F32, ("batch", 0))],
        [TensorSpec("x", np.dtype(object), ("batch",))],
        [TensorSpec("x", F32, ("batch",)), TensorSpec("z", F32, ("batch",))],
    ],
)
def test_models_whose_row_has_no_fixed_size_are_told_so(inputs):
    with pytest.raises(UnsupportedMediaType):
        codec_of(*inputs)


def test_models_without_rows_are_told_so():
    with pytest.raises(UnsupportedMediaType):
        codec_of(TensorSpec("x", F32, (2, 2)), row_wise=False)


def test_the_answer_is_the_json_of_predict():
    request, outputs = InferRequest({}, "values"), [np.array([[1, 2]], F32)]

    encoded = pixels.encode(request, outputs)

    assert json.loads(encoded.body) == {"predictions": [[1.0, 2.0]]}
    assert encoded.content_type == b"application/json"
    assert pixels.written_bytes(request, outputs) == 8
    assert pixels.parsed_bytes(bytes(24)) == 0
    assert pixels.place(request, "pixels[0][1]") == "pixels[0][1]"
