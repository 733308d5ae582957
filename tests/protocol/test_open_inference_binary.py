import struct
import tracemalloc

import numpy as np
import pytest
from open_inference_models import (
    AGE,
    DTYPES,
    F32,
    TEXT,
    X,
    Y,
    binary_x,
    body_of,
    codec_of,
    decode_with_tail,
    tensor,
    x_of,
)

from redserve.engine.tensors import TensorSpec
from redserve.errors import BadRequest
from redserve.protocol import Asked, AskedOutput

one_input = codec_of()
mixed = codec_of([X, AGE, TEXT])
SIZES = {name: dtype.itemsize for name, dtype in DTYPES.items() if name != "BYTES"}


def string(text):
    return struct.pack("<I", len(text)) + text


def strings_entry(count, size_bytes):
    return {"name": "x", "shape": [count], "datatype": "BYTES", "parameters": {"binary_data_size": size_bytes}}


def decode_strings(tail, *, count):
    return decode_with_tail(tensor("BYTES", (None,)), body_of(strings_entry(count, len(tail))), tail).tensors["x"]


def test_binary_numbers_are_a_view_of_the_body():
    values = np.array([[1, 2.5], [np.nan, -np.inf]], F32)
    head = body_of(binary_x(16, shape=[2, 2]))
    body = head + values.tobytes()

    for padding in range(4):
        padded = body.replace(b"{", b"{" + b" " * padding, 1)
        request = one_input.decode(padded, json_length=str(len(head) + padding).encode())
        assert np.array_equal(request.tensors["x"], values, equal_nan=True)
        assert np.shares_memory(request.tensors["x"], np.frombuffer(padded, np.uint8))
        assert request.tensors["x"].dtype == F32


def test_binary_tensors_lie_in_the_order_of_inputs_and_json_ones_take_no_bytes():
    text = {"name": "text", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}}
    age = {"name": "age", "shape": [1], "datatype": "INT8", "data": [7]}
    tail = string("é".encode()) + np.array([1, 2], F32).tobytes()

    request = decode_with_tail(mixed, body_of(text, age, binary_x(8)), tail)

    assert {name: array.tolist() for name, array in request.tensors.items()} == {
        "text": [["é"]],
        "age": [7],
        "x": [[1.0, 2.0]],
    }
    assert mixed.place(request, "x[0][1]") == "$.inputs[2]"


def test_a_boolean_is_a_byte_of_0_or_1():
    codec = tensor("BOOL", (None,))
    head = body_of({"name": "x", "shape": [2], "datatype": "BOOL", "parameters": {"binary_data_size": 2}})

    assert decode_with_tail(codec, head, b"\1\0").tensors["x"].tolist() == [True, False]
    with pytest.raises(BadRequest, match="neither 0 nor 1"):
        decode_with_tail(codec, head, b"\1\2")


def test_strings_keep_nuls_and_may_be_empty():
    texts = [b"a\0b", b"", "é🙂".encode()]

    assert decode_strings(b"".join(map(string, texts)), count=3).tolist() == ["a\0b", "", "é🙂"]
    assert decode_strings(b"", count=0).shape == (0,)


@pytest.mark.parametrize(
    ("tail", "count", "message"),
    [
        (string(b"a"), 2, r"1 strings, shape \[2\] takes 2"),
        (string(b"a") * 3, 2, r"5 bytes after the 2 strings"),
        (string(b"a"), 0, r"5 bytes after the 0 strings"),
        (string(b"a") + b"\1\0", 2, "cut off in the length of string 1"),
        (b"\3\0\0\0ab", 1, "string 0 of input 'x' should have 3 bytes, 2 are there"),
        (b"\xff\xff\xff\xff", 1, "should have 4294967295 bytes, 0 are there"),
        (string(b"\xff"), 1, "string 0 of input 'x' is not UTF-8"),
        (string(b"\xed\xa0\x80"), 1, "is not UTF-8"),
        (string(b""), 10**12, r"1 strings, shape \[1000000000000\] takes"),
    ],
)
def test_strings_that_do_not_fill_their_shape_are_refused(tail, count, message):
    with pytest.raises(BadRequest, match=message) as caught:
        decode_strings(tail, count=count)
    assert caught.value.where == "$.inputs[0]"


@pytest.mark.parametrize("shape", [[0, 2], [2, 0], [0, 10**12]])
def test_a_tensor_without_elements_takes_no_bytes(shape):
    codec = tensor("FP32", (None, None))

    assert decode_with_tail(codec, body_of(binary_x(0, shape=shape)), b"").tensors["x"].shape == tuple(shape)
    with pytest.raises(BadRequest, match="additional input data: 4 bytes"):
        decode_with_tail(codec, body_of(binary_x(0, shape=shape)), b"1234")


def test_a_tensor_without_dimensions_is_one_element():
    request = decode_with_tail(tensor("FP32", ()), body_of(binary_x(4, shape=[])), struct.pack("<f", 1.5))

    assert request.tensors["x"].shape == ()
    assert request.tensors["x"] == 1.5


@pytest.mark.parametrize("datatype", SIZES)
def test_the_size_has_to_be_that_of_shape_and_datatype(datatype):
    codec = codec_of([TensorSpec("x", DTYPES[datatype], (None,))])
    size = 3 * SIZES[datatype]

    def decode(size_bytes, tail_bytes):
        entry = {"name": "x", "shape": [3], "datatype": datatype, "parameters": {"binary_data_size": size_bytes}}
        return decode_with_tail(codec, body_of(entry), bytes(tail_bytes))

    assert decode(size, size).tensors["x"].dtype == DTYPES[datatype]
    with pytest.raises(BadRequest, match=f"takes {size} bytes, 'binary_data_size' is {size - 1}"):
        decode(size - 1, size)
    with pytest.raises(BadRequest, match=f"unexpected size for input 'x': 1 of its {size} bytes are missing"):
        decode(size, size - 1)
    with pytest.raises(BadRequest, match="unexpected additional input data: 2 bytes"):
        decode(size, size + 2)


@pytest.mark.parametrize("size", [-1, 8.0, "8", True])
def test_a_size_is_a_count(size):
    with pytest.raises(BadRequest, match="'binary_data_size' must be a non-negative integer"):
        decode_with_tail(one_input, body_of(binary_x(size)), bytes(8))


@pytest.mark.parametrize("shape", [[2**61, 2], [2**62, 2**62], [2**63 - 1, 2**63 - 1]])
def test_a_product_that_overflows_is_refused(shape):
    for size in (0, 8, 2**63):
        with pytest.raises(BadRequest, match="too large"):
            decode_with_tail(one_input, body_of(binary_x(size, shape=shape)), bytes(8))


def test_a_shape_that_lies_takes_no_memory():
    bodies = [
        (one_input, body_of(binary_x(8 * 10**12, shape=[10**12, 2]))),
        (one_input, body_of(x_of(shape=[10**12, 2]))),
        (tensor("BYTES", (None,)), body_of(strings_entry(10**12, 8))),
    ]
    tracemalloc.start()
    try:
        for codec, head in bodies:
            with pytest.raises(BadRequest):
                decode_with_tail(codec, head, bytes(8))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert 0 < peak_bytes < 1_000_000


@pytest.mark.parametrize("length", ["-1", "x", "1.5", "99999", "2147483648", "9" * 30, " ", "+1", "1_0", "\u0661"])
def test_a_header_length_that_lies_is_refused(length):
    with pytest.raises(BadRequest, match="Inference-Header-Content-Length must be a number from 0 to the"):
        one_input.decode(body_of(x_of()), json_length=length.encode())


def test_a_header_length_that_cuts_the_json_is_refused():
    body = body_of(x_of())

    assert one_input.decode(body, json_length=str(len(body)).encode()).tensors["x"].shape == (1, 2)
    with pytest.raises(BadRequest, match="not valid JSON"):
        one_input.decode(body, json_length=b"5")


def test_without_the_header_there_are_no_binary_tensors():
    with pytest.raises(BadRequest, match="unexpected size for input 'x': 8 of its 8 bytes are missing"):
        one_input.decode(body_of(binary_x(8)))
    with pytest.raises(
        BadRequest, match=r"trailing characters .*: Inference-Header-Content-Length says where the JSON ends"
    ):
        one_input.decode(body_of(binary_x(8)) + bytes(8))


def test_not_finite_json_may_stand_before_binary_tensors():
    codec = codec_of([X, AGE])
    age = {"name": "age", "shape": [1], "datatype": "INT8", "parameters": {"binary_data_size": 1}}

    request = decode_with_tail(codec, body_of(x_of(data=[float("nan"), 1]), age), b"\7")

    assert np.isnan(request.tensors["x"][0, 0])
    assert request.tensors["age"].tolist() == [7]


class TestABodyWithoutJson:
    def test_is_one_row_and_all_outputs_come_back_binary(self):
        codec = codec_of([X], [Y, TEXT])

        request = codec.decode(np.array([1, 2], F32).tobytes(), json_length=b"0")

        assert request.tensors["x"].tolist() == [[1.0, 2.0]]
        assert request.form == Asked((AskedOutput(0, is_binary=True), AskedOutput(1, is_binary=True)))

    @pytest.mark.parametrize("body", [b"", bytes(4), bytes(7), bytes(16)])
    def test_has_the_size_of_one_row(self, body):
        with pytest.raises(BadRequest, match=f"{len(body)} bytes, shape \\[1, 2\\] takes 8"):
            one_input.decode(body, json_length=b"0")

    def test_may_leave_one_dimension_open(self):
        row_wise = codec_of([TensorSpec("x", F32, ("batch", "n", 2))])
        whole = codec_of([TensorSpec("x", F32, ("n", 2))], row_wise=False)

        assert row_wise.decode(bytes(24), json_length=b"0").tensors["x"].shape == (1, 3, 2)
        assert row_wise.decode(b"", json_length=b"0").tensors["x"].shape == (1, 0, 2)
        assert whole.decode(bytes(24), json_length=b"0").tensors["x"].shape == (3, 2)
        with pytest.raises(BadRequest, match=r"13 bytes, shape \[1, 2\] takes 8"):
            whole.decode(bytes(13), json_length=b"0")

    def test_may_not_leave_two_open(self):
        codec = codec_of([TensorSpec("x", F32, ("batch", "n", "m"))])

        with pytest.raises(BadRequest, match="more than one variable-sized dimension"):
            codec.decode(bytes(24), json_length=b"0")

    def test_is_for_models_with_one_input(self):
        with pytest.raises(BadRequest, match="must only have 1 input, this one has 2"):
            codec_of([X, AGE]).decode(bytes(9), json_length=b"0")

    def test_may_be_one_bare_string(self):
        request = codec_of([TEXT]).decode("a\0é".encode(), json_length=b"0")

        assert request.tensors["text"].tolist() == [["a\0é"]]
        assert tensor("BYTES", (1,)).decode(b"", json_length=b"0").tensors["x"].tolist() == [""]
        with pytest.raises(BadRequest, match=r"must have shape \[1\]"):
            tensor("BYTES", (None,)).decode(b"a", json_length=b"0")
        with pytest.raises(BadRequest, match="not UTF-8"):
            codec_of([TEXT]).decode(b"\xff", json_length=b"0")

    def test_may_be_a_row_without_elements(self):
        codec = tensor("FP32", (0, None))

        assert codec.decode(b"", json_length=b"0").tensors["x"].shape == (0, 0)
        with pytest.raises(BadRequest, match="4 bytes"):
            codec.decode(bytes(4), json_length=b"0")


def test_binary_numbers_are_no_work_for_a_thread_but_json_and_strings_are():
    body = body_of(binary_x(8)) + bytes(8)

    assert one_input.parsed_bytes(body) == len(body)
    assert one_input.parsed_bytes(body, json_length=str(len(body) - 8).encode()) == len(body) - 8
    assert one_input.parsed_bytes(body, json_length=b"0") == 0
    assert one_input.parsed_bytes(body, json_length=b"x") == len(body)
    assert one_input.parsed_bytes(body, json_length=b"99999") == len(body)
    assert mixed.parsed_bytes(body, json_length=b"5") == len(body)
