import json
import math

import numpy as np
import pytest
from open_inference_models import DTYPES, F32, HALF, LABEL, WORD, X, Y, codec_of, parts_of

from redserve.engine.tensors import TensorSpec
from redserve.errors import ModelError
from redserve.protocol import Asked, AskedOutput, InferRequest

VALUES = np.array([[0.1, 2]], F32)


def asking(*outputs, request_id=""):
    """A request for outputs by index, `binary` where the index is negative: -1 is output 0."""
    return InferRequest({}, Asked(tuple(AskedOutput(max(n, -n - 1), n < 0) for n in outputs), request_id))


def test_json_outputs_are_flat_and_named():
    encoded = codec_of([X], [Y, LABEL]).encode(asking(0, 1, request_id="7"), [VALUES, np.array([-(2**63)])])

    assert encoded.content_type == b"application/json"
    assert encoded.headers == ()
    assert json.loads(encoded.body) == {
        "id": "7",
        "model_name": "digits",
        "model_version": "3",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [0.1, 2.0]},
            {"name": "label", "datatype": "INT64", "shape": [1], "data": [-(2**63)]},
        ],
    }


def test_an_id_is_repeated_only_where_there_was_one():
    assert "id" not in json.loads(codec_of().encode(asking(0), [VALUES]).body)


def test_outputs_come_in_the_order_asked_for_and_no_others():
    message, _ = parts_of(codec_of([X], [Y, LABEL, WORD]).encode(asking(2, 0), [VALUES, None, np.array(["a"], object)]))

    assert [output["name"] for output in message["outputs"]] == ["word", "y"]


def test_binary_outputs_stand_behind_the_json_in_its_order():
    codec = codec_of([X], [Y, LABEL, WORD])

    encoded = codec.encode(asking(-3, 1, -1), [VALUES, np.array([5]), np.array(["é\0"], object)])

    message, tail = parts_of(encoded)
    assert encoded.content_type == b"application/octet-stream"
    assert message["outputs"] == [
        {"name": "word", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 7}},
        {"name": "label", "datatype": "INT64", "shape": [1], "data": [5]},
        {"name": "y", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
    ]
    assert tail == b"\3\0\0\0\xc3\xa9\0" + VALUES.tobytes()


def test_an_answer_without_binary_bytes_is_plain_json():
    encoded = codec_of().encode(asking(-1), [np.empty((0, 2), F32)])

    assert encoded.content_type == b"application/json"
    assert encoded.headers == ()
    assert json.loads(encoded.body)["outputs"] == [
        {"name": "y", "datatype": "FP32", "shape": [0, 2], "parameters": {"binary_data_size": 0}}
    ]


def test_not_finite_numbers_are_tokens_that_python_reads():
    values = np.array([[math.nan, 1.5, math.inf], [-math.inf, -0.0, 3e38]], F32)

    encoded = codec_of().encode(asking(0), [values])

    assert b'"data":[NaN,1.5,Infinity,-Infinity,-0.0,3e+38]' in encoded.body
    (output,) = json.loads(encoded.body)["outputs"]
    assert np.array_equal(np.array(output["data"], F32).reshape(output["shape"]), values, equal_nan=True)


def test_a_string_may_say_null():
    encoded = codec_of([X], [WORD, Y]).encode(
        asking(0, 1), [np.array(["null", "NaN"], object), np.array([math.nan], F32)]
    )

    assert next(output["data"] for output in parts_of(encoded)[0]["outputs"]) == ["null", "NaN"]
    assert encoded.body.count(b"NaN") == 2


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,), (0, 4), (2, 0)])
@pytest.mark.parametrize("datatype", sorted(DTYPES))
def test_every_datatype_is_written_in_every_shape(datatype, shape):
    codec = codec_of([X], [TensorSpec("y", DTYPES[datatype], (None,) * len(shape))], row_wise=False)
    output = np.full(shape, "é" if datatype == "BYTES" else 1, DTYPES[datatype])

    message, tail = parts_of(codec.encode(asking(-1), [output]))
    (head,) = message["outputs"]

    assert (head["datatype"], head["shape"], head["parameters"]["binary_data_size"]) == (
        datatype,
        list(shape),
        len(tail),
    )
    assert tail == (b"\2\0\0\0\xc3\xa9" * output.size if datatype == "BYTES" else output.tobytes())
    if datatype not in ("FP16", "BF16"):
        (plain,) = parts_of(codec.encode(asking(0), [output]))[0]["outputs"]
        assert plain["data"] == output.reshape(-1).tolist()


def test_outputs_may_be_views_of_a_larger_batch():
    batch = np.arange(12, dtype=np.float32).reshape(2, 6)
    for output in (batch[:, ::3], batch.T[:2], batch[1:]):
        assert parts_of(codec_of().encode(asking(-1), [output]))[1] == output.tobytes()
        assert parts_of(codec_of().encode(asking(0), [output]))[0]["outputs"][0]["data"] == output.reshape(-1).tolist()


def test_integers_as_onnx_runtime_gives_them_are_written():
    codec = codec_of([X], [LABEL])

    assert b'"data":[1,2]' in codec.encode(asking(0), [np.array([1, 2], "q")]).body
    assert b'"data":[1]' in codec.encode(asking(0), [np.array(1, "q")]).body


def test_an_output_that_the_protocol_cannot_say_is_a_model_error():
    for request in (asking(0), asking(-1)):
        with pytest.raises(ModelError, match=r"'y' cannot be sent: .* no datatype for complex64"):
            codec_of().encode(request, [np.ones(1, np.complex64)])
        with pytest.raises(ModelError, match="string that is no text"):
            codec_of([X], [WORD]).encode(request, [np.array(["\ud800"], object)])


def test_only_its_own_requests_are_answered():
    with pytest.raises(TypeError, match="'columns'"):
        codec_of().encode(InferRequest({}, "columns"), [VALUES])


def test_what_is_written_one_by_one_is_counted():
    codec = codec_of([X], [Y, WORD, HALF])
    outputs = [np.ones((8, 2), F32), np.array(["a"] * 8, object), np.ones((8, 2), np.float16)]

    assert codec.written_bytes(asking(-1, -3), outputs) == 0
    assert codec.written_bytes(asking(0, -3), outputs) == 64
    assert codec.written_bytes(asking(-2), outputs) == 64
    assert codec.written_bytes(InferRequest({}, Asked((AskedOutput(0, True, classes=1),))), outputs) == 64


class TestClasses:
    def encode(self, output, classes, *, labels=None, row_wise=True, is_binary=False):
        spec = TensorSpec("y", output.dtype, (None,) * output.ndim)
        codec = codec_of([X], [spec], row_wise=row_wise, labels=labels and {"y": labels})
        encoded = codec.encode(InferRequest({}, Asked((AskedOutput(0, is_binary, classes),))), [output])
        message, tail = parts_of(encoded)
        return message["outputs"][0], tail

    def test_are_the_largest_values_of_each_row_with_their_labels(self):
        output, _ = self.encode(np.array([[0.1, 0.7, 0.2], [3, 1, 2]], F32), 2, labels=["zero", "one"])

        assert output == {
            "name": "y",
            "datatype": "BYTES",
            "shape": [2, 2],
            "data": ["0.7:1:one", "0.2:2", "3.0:0:zero", "2.0:2"],
        }

    def test_are_as_many_as_there_are(self):
        assert self.encode(np.array([[1, 2]], np.uint8), 10**12)[0]["data"] == ["2:1", "1:0"]
        assert self.encode(np.empty((0, 3), F32), 2)[0]["shape"] == [0, 2]
        assert self.encode(np.empty((2, 0), F32), 2)[0]["shape"] == [2, 0]
        assert self.encode(np.array([5.0], F32), 2)[0]["data"] == ["5.0:0"]

    def test_count_within_a_row_whatever_its_shape(self):
        assert self.encode(np.arange(8).reshape(2, 2, 2), 1)[0]["data"] == ["3:3", "7:3"]

    def test_are_those_of_the_whole_output_where_there_are_no_rows(self):
        for output in (np.arange(8).reshape(2, 2, 2), np.arange(8)):
            assert self.encode(output, 2, row_wise=False)[0]["shape"] == [2]
            assert self.encode(output, 2, row_wise=False)[0]["data"] == ["7:7", "6:6"]
        assert self.encode(np.array(5.0, F32), 2, row_wise=False)[0]["data"] == ["5.0:0"]

    def test_of_equal_value_keep_their_order_and_nan_comes_last(self):
        values = np.array([[1, math.nan, 3, 3, math.inf]], F32)

        assert self.encode(values, 9)[0]["data"] == ["inf:4", "3.0:2", "3.0:3", "1.0:0", "nan:1"]
        assert self.encode(np.array([[False, True, True]]), 2)[0]["data"] == ["1:1", "1:2"]
        assert self.encode(np.array([[0, 2**64 - 1, 2**63]], np.uint64), 1)[0]["data"] == [f"{2**64 - 1}:1"]

    def test_of_bfloat16_are_text_like_those_of_other_floats(self):
        values = np.array([[math.nan, 1.5, -2]], DTYPES["BF16"])

        assert self.encode(values, 3)[0]["data"] == ["1.5:1", "-2:2", "nan:0"]

    def test_come_as_binary_strings_too(self):
        output, tail = self.encode(np.array([[1, 2]], np.float16), 1, is_binary=True)

        assert output["parameters"] == {"binary_data_size": 9}
        assert tail == b"\5\0\0\x002.0:1"
