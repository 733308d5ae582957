import json

import numpy as np
import pytest
from open_inference_models import AGE, DTYPES, F32, TEXT, X, Y

from redserve.engine.tensors import TensorSpec
from redserve.errors import BadRequest, UnknownModel
from redserve.protocol import datatype_of, error_body, model_config, model_metadata, server_metadata


@pytest.mark.parametrize("datatype", DTYPES)
def test_every_dtype_has_its_name(datatype):
    assert datatype_of(DTYPES[datatype]) == datatype


def test_integers_as_onnx_runtime_gives_them_have_their_name():
    assert {datatype_of(np.dtype(code)) for code in "lq"} == {"INT64"}


@pytest.mark.parametrize("dtype", ["c8", "U1", "S1", "M8[s]", "V2", ">f4"])
def test_other_dtypes_have_none(dtype):
    with pytest.raises(ValueError, match="no datatype for"):
        datatype_of(np.dtype(dtype))


def test_a_server_names_itself_and_its_extensions():
    assert server_metadata("1.2", ["binary_tensor_data"]) == {
        "name": "redserve",
        "version": "1.2",
        "extensions": ["binary_tensor_data"],
    }


def test_sizes_that_vary_are_minus_one_and_rows_are_among_them():
    fixed_batch = TensorSpec("x", F32, (1, "n", None, 2))

    assert model_metadata("m", ["1", "2"], [X, TEXT], [Y], row_wise=True) == {
        "name": "m",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "text", "datatype": "BYTES", "shape": [-1, 1]},
        ],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    }
    for row_wise, rows in ((True, -1), (False, 1)):
        metadata = model_metadata("m", ["1"], [fixed_batch], [TensorSpec("s", F32, ())], row_wise=row_wise)
        assert metadata["inputs"][0]["shape"] == [rows, -1, -1, 2]
        assert metadata["outputs"][0]["shape"] == []


def test_the_configuration_leaves_the_axis_of_the_rows_out():
    config = model_config("m", [X, TEXT, AGE], [Y], max_batch_size=8, max_queue_delay_s=0.0005, instances=2)

    assert config["max_batch_size"] == 8
    assert config["dynamic_batching"] == {"max_queue_delay_microseconds": 500}
    assert config["model_transaction_policy"] == {"decoupled": False}
    assert config["instance_group"] == [{"name": "m", "count": 2}]
    assert config["backend"] == "onnxruntime"
    assert config["input"] == [
        {"name": "x", "data_type": "TYPE_FP32", "dims": [2]},
        {"name": "text", "data_type": "TYPE_STRING", "dims": [1]},
        {"name": "age", "data_type": "TYPE_INT8", "dims": []},
    ]
    json.dumps(config)


def test_the_configuration_of_a_model_without_rows_has_all_its_axes():
    config = model_config("m", [X], [Y], max_batch_size=0)

    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 2]}]
    assert "dynamic_batching" not in config


def test_an_error_is_one_text_of_a_bounded_length():
    assert json.loads(error_body(UnknownModel("x"))) == {"error": "no model named 'x' is served here"}
    assert json.loads(error_body(BadRequest("wrong", where="$.inputs[0]"))) == {"error": "wrong (at $.inputs[0])"}
    assert len(error_body(BadRequest("w" * 10_000, where="$" * 10_000))) < 2_100
