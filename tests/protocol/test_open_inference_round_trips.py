"""Any tensor survives both ways; any bytes are a request or a BadRequest."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from open_inference_models import AGE, DTYPES, TEXT, X, Y, binary_x, body_of, codec_of, decode_with_tail, parts_of, x_of

from redserve.engine.tensors import Array, TensorSpec
from redserve.errors import BadRequest
from redserve.protocol.binary_tensors import to_bytes

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
JSON_DATATYPES = sorted(set(DTYPES) - {"FP16", "BF16"})


def arrays_of(datatype):
    if datatype == "BF16":
        return hnp.arrays(np.uint16, SHAPES).map(lambda bits: bits.view(DTYPES["BF16"]))
    return hnp.arrays(DTYPES[datatype], SHAPES, elements=TEXTS if datatype == "BYTES" else None)


def is_same(one: Array, other: Array) -> bool:
    """Bit for bit, but for the payload of a NaN, which JSON does not have."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))


def entry_of(array, datatype):
    return {"name": "x", "shape": list(array.shape), "datatype": datatype}


def echo_of(array, datatype):
    spec = TensorSpec("x", DTYPES[datatype], (None,) * array.ndim)
    return codec_of([spec], [spec], row_wise=False)


@pytest.mark.parametrize("datatype", sorted(DTYPES))
@settings(max_examples=30)
@given(st.data())
def test_a_tensor_survives_as_binary(datatype, data):
    array = data.draw(arrays_of(datatype))
    codec = echo_of(array, datatype)
    tail = bytes(to_bytes(array))
    head = body_of(
        entry_of(array, datatype) | {"parameters": {"binary_data_size": len(tail)}},
        parameters={"binary_data_output": True},
    )

    request = decode_with_tail(codec, head, tail)
    message, behind = parts_of(codec.encode(request, [request.tensors["x"]]))

    assert request.tensors["x"].tobytes() == array.tobytes() or datatype == "BYTES"
    assert request.tensors["x"].tolist() == array.tolist() or datatype != "BYTES"
    assert behind == tail
    assert message["outputs"] == [entry_of(array, datatype) | {"parameters": {"binary_data_size": len(tail)}}]


@pytest.mark.parametrize("datatype", JSON_DATATYPES)
@settings(max_examples=30)
@given(st.data(), st.booleans())
def test_a_tensor_survives_as_json(datatype, data, is_nested):
    array = data.draw(arrays_of(datatype))
    codec = echo_of(array, datatype)
    values = array.tolist() if is_nested and array.size else array.reshape(-1).tolist()

    request = codec.decode(body_of(entry_of(array, datatype) | {"data": values}))
    message, _ = parts_of(codec.encode(request, [request.tensors["x"]]))

    assert is_same(request.tensors["x"], array)
    (output,) = message["outputs"]
    assert is_same(np.array(output.pop("data"), array.dtype).reshape(array.shape), array)
    assert output == entry_of(array, datatype)


CODECS = [
    codec_of(),
    codec_of([X, AGE, TEXT], [Y]),
    codec_of([TEXT]),
    codec_of([TensorSpec("x", DTYPES["FP64"], ())], row_wise=False),
    codec_of([TensorSpec("x", DTYPES["INT64"], (None, None, 2))], row_wise=False),
]
LENGTHS = st.binary(max_size=6) | st.integers(0, 400).map(lambda length: str(length).encode())


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode), LENGTHS)
def test_no_bytes_raise_anything_but_a_bad_request(body, json_length):
    for codec in CODECS:
        try:
            codec.decode(body, json_length=json_length)
        except BadRequest:
            continue
        finally:
            assert 0 <= codec.parsed_bytes(body, json_length=json_length) <= len(body)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
ANYTHING = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=8)
PARAMETERS = st.dictionaries(
    st.sampled_from(["binary_data_size", "binary_data", "classification", "timeout", "triton_x", "priority", "z"])
    | st.text(max_size=3),
    SCALARS | st.integers(0, 20),
    max_size=3,
)
INPUTS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["x", "age", "text", "z"]),
        "shape": st.lists(st.integers(0, 3) | st.integers(), max_size=3),
        "datatype": st.sampled_from(["FP32", "INT8", "BYTES", "FP64", "INT64"]),
    },
    optional={"data": ANYTHING, "parameters": PARAMETERS},
)
OUTPUTS = st.fixed_dictionaries({"name": st.sampled_from(["y", "z"])}, optional={"parameters": PARAMETERS})


@given(
    st.fixed_dictionaries(
        {"inputs": st.lists(INPUTS, max_size=3)},
        optional={"outputs": st.lists(OUTPUTS, max_size=3), "parameters": PARAMETERS, "id": st.text(max_size=3)},
    ),
    st.binary(max_size=32),
)
def test_no_json_raises_anything_but_a_bad_request(value, tail):
    head = json.dumps(value).encode()
    for codec in CODECS:
        try:
            decode_with_tail(codec, head, tail)
        except BadRequest as error:
            assert str(error).encode()  # noqa: PT017 - a message that can be sent


GOOD = body_of(binary_x(8), id="7", outputs=[{"name": "y", "parameters": {"binary_data": True}}])


@given(st.data())
def test_no_damage_to_a_request_raises_anything_but_a_bad_request(data):
    body = bytearray((GOOD + bytes(8)) if data.draw(st.booleans()) else body_of(x_of(data=[float("nan"), 2])))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        codec_of().decode(bytes(body), json_length=str(len(GOOD)).encode())
    except BadRequest:
        return
