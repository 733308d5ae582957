import io
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from redserve.engine.tensors import TensorSpec
from redserve.errors import BadRequest, UnsupportedMediaType
from redserve.protocol import InferRequest, Npy, PredictJson

F32 = np.dtype(np.float32)
VALUES = np.array([[1, 2.5], [np.nan, -np.inf]], F32)
ROWS = InferRequest({}, "values")


def spec_of(dtype, rank=2, name="x"):
    return TensorSpec(name, np.dtype(dtype), (None,) * rank)


Y = spec_of(F32, name="y")


def codec_of(*inputs, outputs=(Y,), row_wise=True):
    return Npy(inputs, outputs, row_wise=row_wise, json=PredictJson(inputs, outputs, row_wise=row_wise))


def file_of(array, version=(1, 0), **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version, **options)
    return file.getvalue()


def file_saying(header, data=b"", version=b"\1\0"):
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + data


def header_of(descr="'<f4'", order="False", shape="(2, 2)"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()


floats = codec_of(spec_of(F32))


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_an_array_is_a_view_of_the_body(version):
    body = file_of(VALUES, version)

    request = floats.decode(body)

    assert request.form == "values"
    assert np.array_equal(request.tensors["x"], VALUES, equal_nan=True)
    assert np.shares_memory(request.tensors["x"], np.frombuffer(body, np.uint8))


def test_a_model_that_is_not_row_wise_is_answered_by_columns():
    assert codec_of(spec_of(F32), row_wise=False).decode(file_of(VALUES)).form == "columns"


@pytest.mark.parametrize("dtype", ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 0), (0, 2)])
def test_every_dtype_is_read_in_both_byte_orders_and_both_orders_of_axes(dtype, shape):
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    codec = codec_of(spec_of(dtype, len(shape)))

    for order in "<", ">":
        for array in (values, np.array(values, order="F")):
            tensor = codec.decode(file_of(array.astype(np.dtype(dtype).newbyteorder(order)))).tensors["x"]
            assert tensor.dtype == np.dtype(dtype)
            assert tensor.dtype.isnative
            assert np.array_equal(tensor, values)


def test_the_type_has_to_be_the_models():
    with pytest.raises(BadRequest, match="input 'x' must be float32, got float64"):
        floats.decode(file_of(VALUES.astype(float)))


def test_the_rank_has_to_be_the_models():
    with pytest.raises(BadRequest, match="must have 2 dimensions, got 1"):
        floats.decode(file_of(VALUES[0]))
    with pytest.raises(BadRequest, match="must have 2 dimensions, got 1000"):
        floats.decode(file_saying(header_of(shape=f"({'1,' * 1000})"), bytes(4)))


def test_a_pickle_is_never_read():
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("it was unpickled",)

    with pytest.raises(BadRequest, match="objects are pickles"):
        floats.decode(file_of(np.array([[Trap()]], object), allow_pickle=True))
    with pytest.raises(BadRequest, match="is not a"):
        floats.decode(b"\x80\x04\x95")


@pytest.mark.parametrize(
    "descr", ["'<U5'", "'|S5'", "'<c8'", "'<M8[s]'", "'|V4'", "[('a', '<f4')]", "'f3'", "'<i'", "'?8'"]
)
def test_other_types_are_refused(descr):
    with pytest.raises(BadRequest):
        floats.decode(file_saying(header_of(descr), bytes(16)))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not a .npy file"),
        (b"\x93NUMPY", "not a .npy file"),
        (b"\x93NUMPY\3\0", "not a .npy file of version 1.0 or 2.0"),
        (b"\x93NUMPY\1\0", "should end at byte 10, of 8"),
        (b"\x93NUMPY\1\0\xff\xff", "should end at byte 65545, of 10"),
        (b"\x93NUMPY\2\0\xff\xff\xff\xff", "should end at byte 4294967307"),
        (b"\x93NUMPY\2\0\xff\xff\x00\x00" + b"(" * 70_000, "should end at byte 65547"),
        (file_saying(b"{}"), "does not say descr, fortran_order and shape"),
        (file_saying(b"__import__('os').abort()"), "does not say"),
        (file_saying(header_of(shape="(2, -2)"), bytes(16)), "does not say"),
        (file_saying(header_of(shape="(2, 2.0)"), bytes(16)), "does not say"),
        (file_saying(header_of(shape="(2,,2)"), bytes(16)), r"says shape \(2,,2\)"),
        (file_saying(header_of(shape=f"(2, {'9' * 5000})"[:3000]), bytes(16)), "does not say"),
        (file_saying(header_of(shape=f"(2, {'9' * 3000})"), bytes(16)), "says shape"),
        (file_saying(header_of(shape="(1000000000000, 2)"), bytes(16)), "takes 8000000000000 bytes, 16 came"),
        (file_saying(header_of(shape=f"({10**17}, {10**17})"), bytes(16)), "too large"),
        (file_saying(header_of(), bytes(15)), "takes 16 bytes, 15 came"),
        (file_saying(header_of(), bytes(17)), "takes 16 bytes, 17 came"),
    ],
)
def test_a_file_that_lies_is_refused(body, message):
    with pytest.raises(BadRequest, match=message):
        floats.decode(body)


def test_a_boolean_is_a_byte_of_0_or_1():
    with pytest.raises(BadRequest, match="neither 0 nor 1"):
        codec_of(spec_of("?", 1)).decode(file_saying(header_of("'|b1'", shape="(2,)"), b"\1\2"))


def test_headers_of_other_writers_are_read():
    header = b'{"shape": (2,2), "descr": "<f4", "fortran_order": False}\n'

    assert floats.decode(file_saying(header, VALUES.tobytes())).tensors["x"].shape == (2, 2)


@pytest.mark.parametrize("inputs", [[spec_of(F32), spec_of(F32, name="z")], [spec_of(object)], []])
def test_models_that_do_not_take_one_array_of_numbers_are_told_so(inputs):
    with pytest.raises(UnsupportedMediaType, match="send JSON"):
        codec_of(*inputs)


@pytest.mark.parametrize(
    "array", [VALUES, VALUES.T, VALUES[:, 1], np.array(1.5), np.empty((0, 2)), VALUES.astype(">f8")]
)
def test_one_output_is_an_array_that_numpy_reads(array):
    encoded = floats.encode(ROWS, [array])

    assert encoded.content_type == b"application/x-npy"
    read = np.load(io.BytesIO(encoded.body), allow_pickle=False)
    assert np.array_equal(read, array, equal_nan=True)
    assert read.shape == array.shape
    assert floats.written_bytes(ROWS, [array]) == 0


def test_several_outputs_and_text_are_the_json_of_predict():
    several = codec_of(spec_of(F32), outputs=[spec_of(F32, name="y"), spec_of("i8", 1, name="label")])
    text = codec_of(spec_of(F32), outputs=[spec_of(object, 1, name="word")])

    encoded = several.encode(ROWS, [VALUES[:1], np.array([7])])

    assert encoded.content_type == b"application/json"
    assert json.loads(encoded.body) == {"predictions": [{"y": [1.0, 2.5], "label": 7}]}
    assert several.written_bytes(ROWS, [VALUES[:1], np.array([7])]) == 16
    assert json.loads(text.encode(ROWS, [np.array(["a"], object)]).body) == {"predictions": ["a"]}


def test_only_the_header_is_read_byte_by_byte_and_places_are_indices():
    assert floats.parsed_bytes(bytes(1_000_000)) == 4096
    assert floats.place(ROWS, "x[1][0]") == "x[1][0]"


@given(
    hnp.arrays(
        st.sampled_from(["f4", ">f4"]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=5),
        elements=st.floats(width=32),
    )
)
def test_what_numpy_writes_is_read_again(array):
    assert np.array_equal(floats.decode(file_of(array)).tensors["x"], array, equal_nan=True)


@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda header: file_saying(header, bytes(16))))
def test_no_bytes_raise_anything_but_a_bad_request(body):
    try:
        floats.decode(body)
    except BadRequest:
        return


@given(st.data())
def test_no_damage_to_a_file_raises_anything_but_a_bad_request(data):
    body = bytearray(file_of(VALUES))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        floats.decode(bytes(body[: data.draw(st.integers(0, len(body)))]))
    except BadRequest:
        return
