import json
import math

import numpy as np
import pytest
from open_inference_models import AGE, DTYPES, F32, HALF, LABEL, TEXT, WORD, X, Y, body_of, codec_of, tensor, x_of

from redserve.engine.tensors import TensorSpec
from redserve.errors import BadRequest
from redserve.protocol import Asked, AskedOutput

one_input = codec_of()
two_inputs = codec_of([X, AGE], [Y, LABEL])


def test_data_is_flat():
    request = one_input.decode(
        b'{"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2.5, 3, 4]}]}'
    )

    assert request.tensors["x"].tolist() == [[1.0, 2.5], [3.0, 4.0]]
    assert request.tensors["x"].dtype == F32
    assert request.form == Asked((AskedOutput(0, is_binary=False),))
    assert request.timeout_s is None


def test_a_timeout_of_400_digits_is_a_long_one():
    head = body_of(x_of(data=[float("nan"), 2]), parameters={"timeout": int("9" * 400)})

    assert one_input.decode(head).timeout_s > 1e12


def test_data_may_be_nested_as_the_shape_says():
    nested = one_input.decode(body_of(x_of(shape=[2, 2], data=[[1, 2.5], [3, 4]])))

    assert nested.tensors["x"].tolist() == [[1.0, 2.5], [3.0, 4.0]]


def test_inputs_may_come_in_any_order():
    age = {"name": "age", "shape": [1], "datatype": "INT8", "data": [7]}

    request = two_inputs.decode(body_of(age, x_of()))

    assert request.tensors["age"].tolist() == [7]
    assert two_inputs.place(request, "x[0][1]") == "$.inputs[1]"
    assert two_inputs.place(request, "age[0]") == "$.inputs[0]"
    assert two_inputs.place(request, "neither") == "$.inputs"


def test_null_is_as_good_as_absent_and_unknown_fields_are_let_pass():
    request = one_input.decode(
        body_of(x_of(parameters={"binary_data_size": None, "mine": 1}), id=None, outputs=None, parameters=None, more=1)
    )

    assert request.form == Asked((AskedOutput(0, is_binary=False),))
    with pytest.raises(BadRequest, match="neither"):
        one_input.decode(b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": null}]}')


def test_not_finite_numbers_come_as_bare_tokens():
    request = one_input.decode(body_of(x_of(shape=[2, 2], data=[math.nan, math.inf, -math.inf, 1e-3]), id="NaN"))

    assert np.array_equal(request.tensors["x"], np.array([[np.nan, np.inf], [-np.inf, 1e-3]], F32), equal_nan=True)
    assert request.form.id == "NaN"
    nested = one_input.decode(body_of(x_of(data=[[math.nan, 1]])))
    assert np.array_equal(nested.tensors["x"], np.array([[np.nan, 1]], F32), equal_nan=True)


@pytest.mark.parametrize(
    "data", [[1, "2"], [1, True], [1, None], [1, [2]], {"a": 1}, "NaN", [math.nan, "2"], [math.nan, True]]
)
def test_a_float_is_not_made_of_anything_else(data):
    with pytest.raises(BadRequest, match="Expected") as caught:
        one_input.decode(body_of(x_of(data=data)))
    assert caught.value.where.startswith("$.inputs[0].data")


@pytest.mark.parametrize("datatype", ["INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64"])
def test_integers_keep_their_extremes_and_do_not_wrap(datatype):
    limits = np.iinfo(datatype.lower())
    codec = tensor(datatype, (None,))

    def decode(*values):
        return codec.decode(body_of({"name": "x", "shape": [len(values)], "datatype": datatype, "data": values}))

    assert decode(int(limits.min), int(limits.max)).tensors["x"].tolist() == [limits.min, limits.max]
    for outside in (int(limits.min) - 1, int(limits.max) + 1):
        with pytest.raises(BadRequest, match=f"{outside} does not fit") as caught:
            decode(0, outside)
        assert caught.value.where == "$.inputs[0].data[1]"
    for other in (1.5, 1.0, True, "1"):
        with pytest.raises(BadRequest, match="Expected `int`"):
            decode(other)


def test_a_float_that_does_not_fit_is_refused_not_made_infinite():
    with pytest.raises(BadRequest, match=r"1e\+39 does not fit float32") as caught:
        one_input.decode(body_of(x_of(shape=[2, 2], data=[[1, 2], [3, 1e39]])))
    assert caught.value.where == "$.inputs[0].data[1][1]"
    with pytest.raises(BadRequest, match="does not fit float32"):
        one_input.decode(body_of(x_of(data=[math.inf, -1e39])))
    with pytest.raises(BadRequest, match="out of range"):
        one_input.decode(b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [NaN, 1e999]}]}')


def test_booleans_are_true_and_false():
    codec = tensor("BOOL", (2,))

    entry = {"name": "x", "shape": [2], "datatype": "BOOL"}
    assert codec.decode(body_of(entry | {"data": [True, False]})).tensors["x"].tolist() == [True, False]
    with pytest.raises(BadRequest, match="Expected `bool`, got `int`"):
        codec.decode(body_of(entry | {"data": [1, 0]}))


def test_strings_keep_nuls_and_other_planes():
    texts = ["a\0b", "", "é", "🙂", "NaN"]

    request = tensor("BYTES", (None,)).decode(body_of({"name": "x", "shape": [5], "datatype": "BYTES", "data": texts}))

    assert request.tensors["x"].tolist() == texts
    assert request.tensors["x"].dtype == object


@pytest.mark.parametrize("text", [rb"\ud800", rb"\udc00x", b"\xff", b"\xed\xa0\x80"])
def test_what_is_not_unicode_is_no_text(text):
    body = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["%s"]}]}' % text

    with pytest.raises(BadRequest, match="not valid JSON"):
        tensor("BYTES", (1,)).decode(body)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_halves_cannot_come_as_json(datatype):
    with pytest.raises(BadRequest, match=f"{datatype}, which has to come as binary data"):
        codec_of([TensorSpec("x", DTYPES[datatype], (2,))]).decode(
            body_of({"name": "x", "shape": [2], "datatype": datatype, "data": [1, 2]})
        )


def test_a_tensor_may_have_no_dimensions():
    codec = tensor("FP32", ())

    for data in ([1.5], 1.5):
        assert codec.decode(body_of(x_of(shape=[], data=data))).tensors["x"].shape == ()
    assert np.isnan(codec.decode(body_of(x_of(shape=[], data=math.nan))).tensors["x"])
    for data in ([], [1, 2], [[1]]):
        with pytest.raises(BadRequest):
            codec.decode(body_of(x_of(shape=[], data=data)))


@pytest.mark.parametrize(("shape", "data"), [([0, 2], []), ([2, 0], []), ([2, 0], [[], []]), ([0, 10**15], [])])
def test_a_tensor_may_have_no_elements(shape, data):
    codec = tensor("FP32", (None, None))

    assert codec.decode(body_of(x_of(shape=shape, data=data))).tensors["x"].shape == tuple(shape)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1, 2, 3], r"3 values in shape \[3\], shape \[2, 2\] takes 4"),
        ([1, 2, 3, 4, 5], r"5 values in shape \[5\], shape \[2, 2\] takes 4"),
        ([], r"0 values in shape \[0\]"),
        ([[1, 2, 3, 4]], r"4 values in shape \[1, 4\]"),
        ([[1, 2], [3]], "'x' has 1 values here, 2 before"),
        ([[[1, 2], [3, 4]]], "Expected `float`, got `array`"),
        ([1, 2, [3, 4]], "Expected `float`, got `array`"),
    ],
)
def test_data_that_does_not_have_its_shape_is_refused(data, message):
    with pytest.raises(BadRequest, match=message):
        one_input.decode(body_of(x_of(shape=[2, 2], data=data)))


def test_ragged_strings_are_refused():
    with pytest.raises(BadRequest, match="'x' has 1 values here, 2 before"):
        tensor("BYTES", (None, None)).decode(
            body_of({"name": "x", "shape": [2, 2], "datatype": "BYTES", "data": [["a", "b"], ["c"]]})
        )


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([-1, 2], "negative size"),
        ([2**62, 8], "too large"),
        ([2**63, 2], "too large"),
        ([10**12, 2], "takes 2000000000000"),
        ([0, -2], "negative size"),
        ([0, 2**63], "too large"),
        ([2], "must have 2 dimensions, got 1"),
        ([1, 1, 2], "must have 2 dimensions, got 3"),
        ([1] * 1000, "must have 2 dimensions, got 1000$"),
        ([1.0, 2], "Expected `int`, got `float`"),
        ([True, 2], "Expected `int`, got `bool`"),
        ("12", "Expected `array`"),
        (None, "missing required field `shape`"),
    ],
)
def test_a_shape_that_lies_is_refused_before_memory_is_taken(shape, message):
    with pytest.raises(BadRequest, match=message) as caught:
        one_input.decode(body_of(x_of(shape=shape)))
    assert caught.value.where.startswith("$.inputs[0]")


@pytest.mark.parametrize(
    ("body", "where", "message"),
    [
        (b"", None, "not valid JSON"),
        (b"{", None, "not valid JSON"),
        (b"\xff", None, "not valid JSON"),
        (b"NaN", "$", "Expected `object`, got `float`"),
        (b"NaN,", None, "not valid JSON"),
        (b'{"inputs": [NaN], "id": "\xff"}', None, "not valid JSON"),
        (b'{"inputs": [], "id": "\\ud800", "a": NaN}', None, "not valid JSON"),
        (b'{"inputs": [], "a": [NaN, ' + b"9" * 5000 + b"]}", None, "not valid JSON"),
        (b"[]", "$", "Expected `object`, got `array`"),
        (b"{}", "$", "missing required field `inputs`"),
        (b'{"inputs": null}', "$.inputs", "Expected `array`, got `null`"),
        (b'{"inputs": [1]}', "$.inputs[0]", "Expected `object`, got `int`"),
        (b'{"inputs": [{"name": 1}]}', "$.inputs[0].name", "Expected `str`, got `int`"),
        (b'{"inputs": [], "id": 7}', "$.id", "got `int`"),
        (b'{"inputs": [], "parameters": []}', "$.parameters", "got `array`"),
        (b'{"inputs": [], "parameters": {"a": [1]}}', "$.parameters[...]", "got `array`"),
        (b'{"inputs": [], "outputs": {}}', "$.outputs", "got `object`"),
        (b'{"inputs": []}', "$.inputs", "missing 'x': the inputs are 'x'"),
    ],
)
def test_a_body_that_is_no_request_is_refused(body, where, message):
    with pytest.raises(BadRequest, match=message) as caught:
        one_input.decode(body)
    assert caught.value.where == where


def test_missing_unexpected_and_repeated_inputs_are_named():
    with pytest.raises(BadRequest, match="missing 'age' and unexpected 'z': the inputs are 'x', 'age'"):
        two_inputs.decode(body_of(x_of(), x_of(name="z")))
    with pytest.raises(BadRequest, match="missing 'age' and more than once 'x'"):
        two_inputs.decode(body_of(x_of(), x_of()))
    with pytest.raises(BadRequest, match="unexpected 'n0', 'n1'"):
        two_inputs.decode(body_of(*(x_of(name=f"n{number}") for number in range(10_000))))


def test_another_datatype_is_refused_by_its_name_in_the_protocol():
    for datatype in ("FP64", "fp32", "", "TYPE_FP32"):
        with pytest.raises(BadRequest, match="'x' must be FP32, got") as caught:
            one_input.decode(body_of(x_of(datatype=datatype)))
        assert caught.value.where == "$.inputs[0].datatype"


def test_an_input_has_data_in_one_place():
    with pytest.raises(BadRequest, match="one of 'data' and 'binary_data_size', it has both"):
        one_input.decode(body_of(x_of(parameters={"binary_data_size": 8})))
    with pytest.raises(BadRequest, match="it has neither"):
        one_input.decode(body_of(x_of(data=None)))
    with pytest.raises(BadRequest, match="shared memory is not served"):
        one_input.decode(body_of(x_of(data=None, parameters={"shared_memory_region": "a"})))


@pytest.mark.parametrize("depth", [101, 250_000])
@pytest.mark.parametrize(
    "head",
    [
        b"",
        b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": ',
        b'{"more": ',
        b'{"a": NaN, "b": ',
    ],
)
def test_deep_nesting_is_refused(head, depth):
    with pytest.raises(BadRequest):
        one_input.decode(head + b"[" * depth + b"]" * depth + b"}" * head.count(b"{"))


def test_the_timeout_is_in_microseconds():
    def timeout_s(value):
        return one_input.decode(body_of(x_of(), parameters={"timeout": value})).timeout_s

    assert timeout_s(2500) == 0.0025
    assert timeout_s(2**64 - 1) == (2**64 - 1) / 1e6
    assert timeout_s(0) is None
    assert timeout_s(None) is None
    for wrong in (-1, 1.5, True, "1000"):
        with pytest.raises(BadRequest, match="'timeout' must be a non-negative integer"):
            timeout_s(wrong)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"triton_final": True}, "'triton_final' is reserved"),
        ({"priority": -1}, "'priority' must be"),
        ({"sequence_id": -1}, "'sequence_id' must be"),
        ({"sequence_id": 1.5}, "'sequence_id' must be"),
        ({"sequence_start": 1}, "'sequence_start' must be true or false"),
        ({"sequence_end": "x"}, "'sequence_end' must be true or false"),
        ({"binary_data_output": 1}, "'binary_data_output' must be true or false"),
    ],
)
def test_parameters_with_a_meaning_are_checked(parameters, message):
    with pytest.raises(BadRequest, match=message):
        one_input.decode(body_of(x_of(), parameters=parameters))


def test_parameters_without_a_meaning_here_are_let_pass():
    parameters = {"priority": 1, "sequence_id": "a", "sequence_start": True, "sequence_end": False, "mine": 1.5}

    assert one_input.decode(body_of(x_of(), parameters=parameters)).timeout_s is None


def test_outputs_come_as_they_are_asked_for():
    codec = codec_of([X], [Y, LABEL, WORD])

    def asked(**fields):
        return codec.decode(body_of(x_of(), **fields)).form

    def output(name, **parameters):
        return {"name": name, "parameters": parameters}

    everything = {"parameters": {"binary_data_output": True}}
    assert asked() == Asked(tuple(AskedOutput(index, is_binary=False) for index in range(3)))
    assert asked(**everything) == Asked(tuple(AskedOutput(index, is_binary=True) for index in range(3)))
    assert asked(outputs=[], **everything) == asked(**everything)
    assert asked(id="7", outputs=[{"name": "word"}, output("y", binary_data=True)]) == Asked(
        (AskedOutput(2, is_binary=False), AskedOutput(0, is_binary=True)), "7"
    )
    assert asked(outputs=[{"name": "y"}], **everything) == Asked((AskedOutput(0, is_binary=False),))
    assert asked(outputs=[output("y", binary_data=False)], **everything) == Asked((AskedOutput(0, is_binary=False),))
    assert asked(outputs=[output("y", classification=2, mine=1)]) == Asked((AskedOutput(0, False, classes=2),))
    assert asked(outputs=[output("y", classification=0)]) == Asked((AskedOutput(0, False),))


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([{"name": "y"}, {"name": "y"}], "output 'y' is asked for more than once"),
        ([{"name": "z"}], "unexpected output 'z': the outputs are 'y', 'word', 'half'"),
        ([{"name": "y", "parameters": {"binary_data": 1}}], "'binary_data' must be true or false"),
        ([{"name": "y", "parameters": {"classification": -1}}], "'classification' must be a non-negative integer"),
        ([{"name": "y", "parameters": {"classification": True}}], "'classification' must be a non-negative integer"),
        ([{"name": "y", "parameters": {"classification": 1.5}}], "'classification' must be a non-negative integer"),
        ([{"name": "y", "parameters": {"shared_memory_region": "a"}}], "shared memory is not served"),
        ([{"name": "word", "parameters": {"classification": 1}}], "'word' is BYTES, which has no classes"),
        ([{"name": "half"}], "'half' is FP16, which only comes as binary data"),
        (None, "'half' is FP16, which only comes as binary data"),
    ],
)
def test_outputs_that_cannot_be_given_are_refused_before_the_model_runs(outputs, message):
    codec = codec_of([X], [Y, WORD, HALF])

    with pytest.raises(BadRequest, match=message) as caught:
        codec.decode(body_of(x_of(), outputs=outputs))
    assert caught.value.where.startswith("$.outputs")


def test_rows_of_strings_are_text():
    request = codec_of([TEXT]).decode(
        json.dumps({"inputs": [{"name": "text", "shape": [2, 1], "datatype": "BYTES", "data": ["a", "b"]}]}).encode()
    )

    assert request.tensors["text"].tolist() == [["a"], ["b"]]
