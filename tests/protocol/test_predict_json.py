import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.engine.tensors import TensorSpec
from redserve.errors import BadRequest, ModelError
from redserve.protocol import InferRequest, PredictJson

F32 = np.dtype(np.float32)
X = TensorSpec("x", F32, ("batch", 2))
Y = TensorSpec("y", F32, ("batch", 2))
SCALAR = TensorSpec("age", np.dtype(np.int8), ("batch",))
TEXT = TensorSpec("text", np.dtype(object), ("batch",))
LABEL = TensorSpec("label", np.dtype(np.int64), ("batch",))

one_input = PredictJson([X], [Y])
two_inputs = PredictJson([X, SCALAR], [Y, LABEL])
text_input = PredictJson([TEXT], [LABEL])
odd_names = PredictJson([TensorSpec("pixel values:0", F32, (None, 2))], [Y])
ROWS = InferRequest({}, form="values")
COLUMNS = InferRequest({}, form="columns")
whole = PredictJson([X], [Y], row_wise=False, row_wise_reason="input 'sr' has no rows")


def test_a_row_of_a_model_with_one_input_is_its_value():
    request = one_input.decode(b'{"instances": [[1, 2.5], [3, 4]]}')

    assert request.form == "values"
    assert request.tensors["x"].dtype == F32
    assert request.tensors["x"].tolist() == [[1.0, 2.5], [3.0, 4.0]]


@pytest.mark.parametrize("parameters", ["null", "{}", '{"top": [1, {"a": null}]}', '"x"', "1e999"])
def test_parameters_as_vertex_clients_send_them_are_passed_over(parameters):
    assert one_input.decode(f'{{"parameters": {parameters}, "instances": [[1, 2]]}}'.encode()).form == "values"
    assert one_input.decode(f'{{"inputs": {{"x": [[1, 2]]}}, "parameters": {parameters}}}'.encode()).form == "columns"


@pytest.mark.parametrize(
    "body", ['{"parameters": {}}', '{"instances": [[1, 2]], "parameters": {x}}', '{"parameters": 1']
)
def test_parameters_make_no_request_by_themselves_and_have_to_be_json(body):
    with pytest.raises(BadRequest):
        one_input.decode(body.encode())


def test_a_row_may_name_its_inputs():
    assert one_input.decode(b'{"instances": [{"x": [1, 2]}]}').tensors["x"].tolist() == [[1.0, 2.0]]
    assert odd_names.decode(b'{"instances": [{"pixel values:0": [1, 2]}]}').tensors["pixel values:0"].shape == (1, 2)


def test_a_row_of_a_model_with_several_inputs_is_an_object():
    request = two_inputs.decode(b'{"instances": [{"x": [1, 2], "age": 7}, {"age": 8, "x": [3, 4]}]}')

    assert request.tensors["x"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert request.tensors["age"].tolist() == [7, 8]
    assert request.tensors["age"].dtype == np.int8


def test_columns_are_whole_tensors_by_name():
    request = two_inputs.decode(b'{"inputs": {"x": [[1, 2], [3, 4]], "age": [7, 8]}}')

    assert request.form == "columns"
    assert request.tensors["x"].shape == (2, 2)


def test_strings_are_object_arrays():
    assert text_input.decode('{"instances": ["a", "ü"]}'.encode()).tensors["text"].tolist() == ["a", "ü"]


def test_a_model_that_is_not_row_wise_takes_columns_only():
    assert whole.decode(b'{"inputs": {"x": [[1, 2]]}}').tensors["x"].shape == (1, 2)
    with pytest.raises(BadRequest, match="'inputs', not 'instances': input 'sr' has no rows"):
        whole.decode(b'{"instances": [[1, 2]]}')


@pytest.mark.parametrize(
    ("body", "where", "message"),
    [
        (b"", None, "not valid JSON"),
        (b"{", None, "not valid JSON"),
        (b"\xff", None, "not valid JSON"),
        (b'{"instances": [[1, 2]]} x', None, "trailing characters"),
        (b'{"instances": [[1, NaN]]}', None, r"\(byte 19\)"),
        (b'{"instances": [[1, Infinity]]}', None, "not valid JSON"),
        (b"[]", "$", "Expected `object`, got `array`"),
        (b"{}", "$", "send {'instances'"),
        (b'{"instances": [], "inputs": {"x": []}}', "$", "not both"),
        (b'{"rows": []}', "$", "unknown field `rows`"),
        (b'{"instances": []}', "$.instances", "at least one row"),
        (b'{"instances": null}', "$.instances", "got `null`"),
        (b'{"instances": [[1, null]]}', "$.instances[0][1]", "got `null`"),
        (b'{"instances": [[1, 2], [1, "2"]]}', "$.instances[1][1]", "got `str`"),
        (b'{"instances": [[1, true]]}', "$.instances[0][1]", "got `bool`"),
        (b'{"instances": [[1, [2]]]}', "$.instances[0][1]", "got `array`"),
        (b'{"instances": [1]}', "$.instances[0]", "got `int`"),
        (b'{"instances": [[1, 1e999]]}', "$.instances[0][1]", "out of range"),
        (b'{"instances": [[1, 2], [3]]}', "$.instances[1]", "'x' has 1 values here, 2 before"),
        (b'{"instances": [[1, 2], {"x": [1, 2]}]}', "$.instances[1]", "all values or all objects"),
        (b'{"instances": [{"y": [1, 2]}]}', "$.instances[0]", "unknown field `y`"),
        (b'{"instances": [{}]}', "$.instances[0]", "missing required field `x`"),
        (b'{"inputs": {"x": [[1, 2], [3]]}}', "$.inputs.x[1]", "'x' has 1 values here, 2 before"),
        (b'{"inputs": {}}', "$.inputs", "missing required field `x`"),
    ],
)
def test_a_mistake_is_refused_with_its_place(body, where, message):
    with pytest.raises(BadRequest, match=message) as caught:
        one_input.decode(body)
    assert caught.value.where == where


def test_an_integer_out_of_range_is_refused_with_its_place():
    with pytest.raises(BadRequest, match="300 does not fit int8") as caught:
        two_inputs.decode(b'{"instances": [{"x": [1, 2], "age": 1}, {"x": [1, 2], "age": 300}]}')
    assert caught.value.where == "$.instances[1].age"


def test_ragged_strings_are_refused_with_their_place():
    codec = PredictJson([TensorSpec("words", np.dtype(object), ("batch", 2))], [LABEL])

    with pytest.raises(BadRequest, match="'words' has 1 values here, 2 before") as caught:
        codec.decode(b'{"instances": [["a", "b"], ["c"]]}')
    assert caught.value.where == "$.instances[1]"


def test_a_mistake_deep_inside_is_placed_exactly():
    codec = PredictJson([TensorSpec("image", np.dtype(np.uint8), ("batch", 2, 3))], [LABEL])

    with pytest.raises(BadRequest) as ragged:
        codec.decode(b'{"instances": [[[1, 2, 3], [4, 5, 6]], [[1, 2, 3], [4, 5]]]}')
    with pytest.raises(BadRequest, match="256 does not fit uint8") as out_of_range:
        codec.decode(b'{"inputs": {"image": [[[1, 2, 3], [4, 5, 6]], [[1, 2, 3], [4, 256, 6]]]}}')
    assert ragged.value.where == "$.instances[1][1]"
    assert out_of_range.value.where == "$.inputs.image[1][1][1]"


def test_a_fraction_is_no_integer():
    with pytest.raises(BadRequest, match="got `float`"):
        two_inputs.decode(b'{"inputs": {"x": [[1, 2]], "age": [1.5]}}')


@pytest.mark.parametrize(
    ("codec", "body", "where", "place"),
    [
        (one_input, b'{"instances": [[1, 2], [3, 4]]}', "x[1][0]", "$.instances[1][0]"),
        (one_input, b'{"instances": [[1, 2], [3, 4]]}', "x", "$.instances"),
        (one_input, b'{"instances": [{"x": [1, 2]}]}', "x[0][1]", "$.instances[0].x[1]"),
        (one_input, b'{"instances": [{"x": [1, 2]}]}', "x", "$.instances[*].x"),
        (two_inputs, b'{"inputs": {"x": [[1, 2]], "age": [1]}}', "x[0][1]", "$.inputs.x[0][1]"),
        (odd_names, b'{"instances": [[1, 2]]}', "pixel values:0[0][1]", "$.instances[0][1]"),
    ],
)
def test_a_place_in_the_tensors_is_told_as_a_place_in_the_body(codec, body, where, place):
    assert codec.place(codec.decode(body), where) == place


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"instances":' + b"[" * 100_000, b'{"a":' * 100_000])
def test_deep_nesting_is_refused(body):
    with pytest.raises(BadRequest):
        one_input.decode(body)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_raise_anything_but_a_bad_request(body):
    for codec in (one_input, two_inputs, text_input, whole):
        try:
            codec.decode(body)
        except BadRequest:
            continue


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "age", "z"]), inner, max_size=3),
    max_leaves=12,
)


@given(st.fixed_dictionaries({}, optional={"instances": JSON, "inputs": JSON}))
def test_no_json_raises_anything_but_a_bad_request(value):
    for codec in (one_input, two_inputs, text_input):
        try:
            codec.decode(json.dumps(value).encode())
        except BadRequest:
            continue


def test_one_output_is_answered_by_values():

    assert json.loads(one_input.encode(ROWS, [np.array([[0.1, 2]], F32)]).body) == {"predictions": [[0.1, 2.0]]}


def test_several_outputs_are_answered_by_objects():
    outputs = [np.array([[1, 2], [3, 4]], F32), np.array([7, 8])]

    assert json.loads(two_inputs.encode(ROWS, outputs).body) == {
        "predictions": [{"y": [1.0, 2.0], "label": 7}, {"y": [3.0, 4.0], "label": 8}]
    }


def test_columns_are_answered_by_columns():

    body = two_inputs.encode(COLUMNS, [np.array([[1, 2]], F32), np.array([7])]).body

    assert json.loads(body) == {"outputs": {"y": [[1.0, 2.0]], "label": [7]}}


def test_scalars_strings_and_extreme_integers_survive():
    codec = PredictJson([X], [LABEL, TEXT, SCALAR])
    outputs = [np.array(-(2**63)), np.array(["null", "é"], object), np.array([127], np.int8)]

    body = codec.encode(COLUMNS, outputs).body

    assert json.loads(body) == {"outputs": {"label": -(2**63), "text": ["null", "é"], "age": [127]}}


@pytest.mark.parametrize("dtype", ["?", "b", "B", "h", "H", "i", "I", "l", "L", "q", "Q", "e", "f", "d"])
@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 1, 1)])
def test_every_dtype_of_an_output_can_be_written_in_rows_and_columns(dtype, shape):
    output = np.ones(shape, dtype)
    codec = PredictJson([X], [Y, LABEL])

    for by_column in (False, True):
        answer = json.loads(codec.encode(COLUMNS if by_column else ROWS, [output, output]).body)
        values = answer["outputs"]["label"] if by_column else [row["label"] for row in answer["predictions"]]
        assert np.array_equal(np.array(values), output)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_output_that_json_cannot_say_is_a_model_error_that_names_it(value):
    with pytest.raises(ModelError, match="output 'y' has a value that is not finite"):
        one_input.encode(ROWS, [np.array([[1, value]], F32)])


@given(
    st.lists(
        st.tuples(
            st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=2),
            st.integers(-128, 127),
        ),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)
def test_a_request_that_is_written_is_read_again(rows, by_column):
    tensors = {"x": np.array([row[0] for row in rows], F32), "age": np.array([row[1] for row in rows], np.int8)}

    request = two_inputs.decode(two_inputs.encode_request(tensors, by_column=by_column))

    assert request.form == ("columns" if by_column else "objects")
    for name, tensor in tensors.items():
        assert np.array_equal(request.tensors[name], tensor)


@pytest.mark.parametrize(
    ("codec", "lines", "outputs"),
    [
        (one_input, [b"[1, 2.5]\n", b" [3e0, 4] \r\n"], [np.float32([[0.1, 2], [3, 4e-9]])]),
        (one_input, [b'{"x": [1, 2]}', b'{"x": [3, 4]}'], [np.float32([[0.1, 2], [3, 4]])]),
        (two_inputs, [b'{"x": [1, 2], "age": 7}'], [np.float32([[0.1, 2]]), np.int64([2**53 + 1])]),
        (text_input, [b'"null"', '"ü"'.encode()], [np.int64([1, 2])]),
        (PredictJson([X], [SCALAR]), [b"[1, 2]"], [np.int8([-7])]),
        (PredictJson([X], [TensorSpec("p", F32, ("batch",))]), [b"[1, 2]"], [np.float32([0.1])]),
        (PredictJson([X], [TEXT]), [b"[1, 2]"], [np.array(["null"], object)]),
    ],
)
def test_a_line_is_what_stands_between_the_commas_of_instances_and_of_predictions(codec, lines, outputs):
    body = codec.decode(b'{"instances": [' + b",".join(lines) + b"]}")
    request = codec.decode_lines(lines)

    assert request.form == body.form
    assert {name: (tensor.dtype, tensor.tolist()) for name, tensor in request.tensors.items()} == {
        name: (tensor.dtype, tensor.tolist()) for name, tensor in body.tensors.items()
    }
    written = codec.encode_lines(outputs)
    assert all(line.endswith(b"\n") for line in written)
    assert b'{"predictions":[' + b",".join(map(bytes.strip, written)) + b"]}" == codec.encode(request, outputs).body


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        ([b"[1, 2]", b"[1, true]"], "$.instances[1][1]"),
        ([b"[1, 2]", b"[3, 1e39]"], "$.instances[1][1]"),
        ([b"[1, 2]", b"[3]"], "$.instances[1]"),
        ([b"[1, 2], [3, 4]"], None),
        ([b"[1,", b"2]"], None),
        ([b""], None),
    ],
)
def test_a_mistake_in_a_line_has_its_place_and_lines_hold_one_row_each(lines, where):
    with pytest.raises(BadRequest) as refused:
        one_input.decode_lines(lines)

    assert refused.value.where == where


def test_lines_cannot_say_what_is_not_finite_and_are_refused_where_there_are_no_rows():
    with pytest.raises(ModelError, match="'y' has a value that is not finite"):
        one_input.encode_lines([np.float32([[1, 2], [np.nan, 3]])])
    with pytest.raises(BadRequest, match="input 'sr' has no rows"):
        whole.decode_lines([b"[1, 2]"])
