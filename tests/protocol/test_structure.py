import json

import msgspec
import numpy as np
import pytest

from protocol.open_inference_models import TEXT, X, body_of, codec_of, x_of
from redserve.engine.tensors import TensorSpec
from redserve.errors import BadRequest, TooMuchToRead
from redserve.protocol import PredictJson

IMAGE = TensorSpec("image", np.dtype(np.float32), ("batch", 2, 3))
OPEN = TensorSpec("open", np.dtype(np.float32), ("batch", "length"))
predict = PredictJson([X], [X])
images = PredictJson([IMAGE], [IMAGE])
lengths = PredictJson([OPEN], [OPEN])
MANY = 200_000


def test_more_values_than_may_wait_are_refused_before_they_are_read():
    body = b'{"instances": [[' + b"1," * MANY + b"1]]}"

    with pytest.raises(TooMuchToRead, match=r"about 200000 values, and only 1000 rows of 2 may wait"):
        predict.weigh(body, most_rows=1000)
    with pytest.raises(TooMuchToRead, match="200000 values"):
        codec_of().weigh(body, most_rows=1000)
    assert predict.weigh(body, most_rows=MANY) > len(body)


@pytest.mark.parametrize(
    ("codec", "body"),
    [
        (lengths, b'{"instances": [[' + b"1," * MANY + b"1]]}"),
        (PredictJson([X], [X], row_wise=False), b'{"inputs": {"x": [' + b"[1,2]," * MANY + b"[1,2]]}}"),
        (codec_of([TEXT]), body_of(x_of(name="text", datatype="BYTES", data=["a"] * MANY))),
    ],
    ids=["a dimension that is open", "no rows", "strings"],
)
def test_where_the_model_leaves_open_how_many_values_there_may_be_they_are_weighed(codec, body):
    assert codec.weigh(body, most_rows=1) > 40 * MANY


def test_what_lists_floats_and_strings_take_is_told_at_least():
    for one in (b"[]", b"[1]", b"1.5", b'"ab"', b'"a long string, in which there are many letters"'):
        body = b"[" + (one + b",") * 1000 + one + b"]"
        made = msgspec.json.decode(body)

        assert predict.weigh(body, most_rows=MANY) + len(body) >= size_of(made)


def size_of(made):
    """Bytes of `made` and of all that is in it."""
    return made.__sizeof__() + sum(map(size_of, made if isinstance(made, list) else ()))


def test_binary_data_is_weighed_as_strings_only_where_it_is_strings():
    text = body_of(x_of(name="text", datatype="BYTES", data=None, parameters={"binary_data_size": 6000}))
    strings = text + b"\1\0\0\0a" * 1200
    length = str(len(text)).encode()

    assert codec_of([TEXT]).weigh(strings, json_length=length, most_rows=10) > 1200 * 72
    assert codec_of([X]).weigh(strings, json_length=length, most_rows=10) < 2000


@pytest.mark.parametrize(
    ("codec", "begin", "entry", "end", "where", "length"),
    [
        (predict, '{"instances": [', "[]", "]}", "$.instances[0]", 2),
        (predict, '{"instances": [', "[1, 2, 3]", "]}", "$.instances[0]", 2),
        (predict, '{"instances": [', '{"x": [1]}', "]}", "$.instances[0].x", 2),
        (predict, '{"inputs": {"x": [', "[]", "]}}", "$.inputs.x[0]", 2),
        (images, '{"instances": [[', "[]", "]]}", "$.instances[0][0]", 3),
        (images, '{"instances": [', "[[1, 2, 3]]", "]}", "$.instances[0]", 2),
        (
            codec_of(),
            '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [',
            "[1]",
            "]}]}",
            "$.inputs[0].data[0]",
            2,
        ),
    ],
)
def test_the_first_list_of_a_wrong_length_ends_the_reading_of_a_large_body(codec, begin, entry, end, where, length):
    body = (begin + (entry + ",") * 30_000 + '"this is not read"' + end).encode()

    with pytest.raises(BadRequest, match=f"a list here must have {length} values") as caught:
        codec.decode(body)
    assert caught.value.where == where


def test_large_bodies_that_are_right_are_read_as_small_ones():
    rows = [[float(row), 1.0] for row in range(20_000)]

    for body in ({"instances": rows}, {"instances": [{"x": row} for row in rows]}, {"inputs": {"x": rows}}):
        assert predict.decode(json.dumps(body).encode()).tensors["x"].tolist() == rows
    for data in (rows, [value for row in rows for value in row]):
        request = codec_of().decode(body_of(x_of(shape=[20_000, 2], data=data)))
        assert request.tensors["x"].tolist() == rows
