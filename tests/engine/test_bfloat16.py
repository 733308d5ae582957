"""bfloat16 on real ONNX Runtime, which knows it as raw memory only."""

import ml_dtypes
import numpy as np
import onnx_models as models
import pytest
from onnx import TensorProto, helper

from redserve.engine.bfloat16 import is_bfloat16, is_float
from redserve.engine.onnx_runtime import OnnxRuntimeEngine
from redserve.engine.row_runner import RowRunner
from redserve.engine.tensors import check_tensors
from redserve.errors import BadRequest, ModelLoadError

BF16 = np.dtype(ml_dtypes.bfloat16)
_BF16, _FLOAT, _TEXT = TensorProto.BFLOAT16, TensorProto.FLOAT, TensorProto.STRING


def load(path):
    return OnnxRuntimeEngine.load(path, device="cpu")


def halves(*rows):
    return {"x": np.array(rows, BF16)}


def doubling(folder):
    """`y = 2 x` and `exact = 2 x` in float32, on the way in float32, as exporters write it for the CPU."""
    return models.save(
        folder / "doubling.onnx",
        [
            helper.make_node("Cast", ["x"], ["wide"], to=_FLOAT),
            helper.make_node("Add", ["wide", "wide"], ["exact"]),
            helper.make_node("Cast", ["exact"], ["y"], to=_BF16),
        ],
        {"x": (_BF16, ["batch", 2])},
        {"y": (_BF16, ["batch", 2]), "exact": (_FLOAT, ["batch", 2])},
    )


def test_it_goes_in_and_comes_out_exactly(tmp_path):
    engine = load(models.identity(tmp_path, dtype=_BF16, shape=["batch", 4]))
    extremes = np.array([[0x7F7F, 0xFF7F, 0x0001, 0x8000], [0x7F80, 0xFF80, 0x3F80, 0x0000]], np.uint16)

    (answer,) = engine.run({"x": extremes.view(BF16)})

    assert answer.dtype == BF16
    assert answer.view(np.uint16).tolist() == extremes.tolist()


def test_a_model_of_it_is_batched_and_each_row_has_its_own_answer(tmp_path):
    engine = load(doubling(tmp_path))
    assert engine.batchability.mode == "dynamic"

    results = RowRunner(engine, 8)([halves([1, 0.5]), halves([2, 3], [4, 5])])

    assert [[output.astype(np.float32).tolist() for output in result] for result in results] == [
        [[[2, 1]], [[2, 1]]],
        [[[4, 6], [8, 10]], [[4, 6], [8, 10]]],
    ]
    assert [output.dtype for output in results[0]] == [BF16, np.float32]


def test_answers_outlive_later_runs(tmp_path):
    engine = load(doubling(tmp_path))
    first, _ = engine.run(halves([1, 2]))
    for _ in range(20):
        engine.run(halves([9, 9], [9, 9]))

    assert first.tolist() == [[2, 4]]


def test_no_elements_are_an_answer_too(tmp_path):
    engine = load(models.identity(tmp_path, dtype=_BF16, shape=["batch", "columns"]))

    (answer,) = engine.run({"x": np.empty((2, 0), BF16)})

    assert (answer.shape, answer.dtype) == ((2, 0), BF16)


def test_a_model_for_which_there_is_no_kernel_is_refused_in_the_words_of_onnx_runtime(tmp_path):
    path = models.save(
        tmp_path / "sum.onnx",
        [helper.make_node("Add", ["x", "x"], ["y"])],
        {"x": (_BF16, ["batch", 2])},
        {"y": (_BF16, ["batch", 2])},
    )

    with pytest.raises(ModelLoadError, match=r"sum\.onnx cannot be loaded: Could not find an implementation for Add"):
        load(path)


def test_a_model_that_takes_strings_as_well_is_refused(tmp_path):
    path = models.save(
        tmp_path / "both.onnx",
        [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["text"], ["same"])],
        {"x": (_BF16, ["batch"]), "text": (_TEXT, ["batch"])},
        {"y": (_BF16, ["batch"]), "same": (_TEXT, ["batch"])},
    )

    with pytest.raises(ModelLoadError, match=r"both\.onnx: ONNX Runtime takes no bfloat16 beside strings"):
        load(path)


def test_what_is_not_finite_is_found(tmp_path):
    engine = load(doubling(tmp_path))
    tensors = halves([1, 2], [3, float("inf")])

    assert check_tensors(engine.inputs, tensors, row_wise=True, finite=False) == 2
    with pytest.raises(BadRequest, match=r"input 'x' holds inf at index \[1, 1\]"):
        check_tensors(engine.inputs, tensors, row_wise=True, finite=True)


def test_it_is_a_float_and_no_other_raw_type_is():
    assert is_float(BF16)
    assert is_bfloat16(BF16)
    assert not is_bfloat16(np.dtype(np.float16))
    assert not is_float(np.dtype("V2"))
