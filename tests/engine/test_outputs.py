import numpy as np
import pytest
from onnx import TensorProto, helper

from engine.onnx_models import save
from redserve.engine.onnx_runtime import OnnxRuntimeEngine
from redserve.engine.outputs import check_outputs
from redserve.engine.tensors import TensorSpec
from redserve.errors import ModelError, WrongResultCount

F32 = np.dtype(np.float32)
SCORES = TensorSpec("scores", F32, ("batch", 2))
LABEL = TensorSpec("label", np.dtype(np.int64), ("batch",))


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def test_what_was_promised_is_passed_on():
    outputs = [zeros(3, 2), zeros(3, dtype=np.int64)]

    assert check_outputs([SCORES, LABEL], outputs, rows=3) == outputs


@pytest.mark.parametrize("rows", [3, None])
@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (None, "has 2 outputs, and a run answered with a NoneType"),
        (zeros(3, 2), "has 2 outputs, and a run answered with a ndarray"),
        ({"scores": zeros(3, 2), "label": zeros(3)}, "has 2 outputs, and a run answered with a dict"),
        ([zeros(3, 2)], "has 2 outputs, and a run answered with 1"),
        ([zeros(3, 2)] * 3, "has 2 outputs, and a run answered with 3"),
        ([[[0.0, 0.0]] * 3, zeros(3)], "'scores' is no array but a list"),
        ([zeros(3, 2), zeros(3)], "'label' must be int64, and a run answered with float32"),
        ([zeros(3, 2, dtype=">f4"), zeros(3)], "must be float32, and a run answered with float32 in foreign byte"),
        ([zeros(3, 5), zeros(3, dtype=np.int64)], r"scores float32 \[batch, 2\] cannot have the shape \[3, 5\]"),
        ([zeros(3, 2, 1), zeros(3, dtype=np.int64)], r"cannot have the shape \[3, 2, 1\]"),
        ([zeros(3, 2), zeros(3, 1, dtype=np.int64)], r"label int64 \[batch\] cannot have the shape \[3, 1\]"),
    ],
)
def test_anything_else_is_refused_and_says_what_is_wrong(outputs, message, rows):
    with pytest.raises(ModelError, match=message):
        check_outputs([SCORES, LABEL], outputs, rows=rows)


@pytest.mark.parametrize(("shape", "got"), [((2, 2), 2), ((0, 2), 0), ((), 1)])
def test_another_number_of_rows_is_refused(shape, got):
    with pytest.raises(WrongResultCount) as caught:
        check_outputs([SCORES], [zeros(*shape)], rows=3)

    assert (caught.value.expected, caught.value.got) == (3, got)


def test_one_number_is_not_one_row():
    with pytest.raises(WrongResultCount):
        check_outputs([TensorSpec("y", F32, ())], [zeros()], rows=1)


def test_rows_are_those_of_the_run_whatever_size_was_declared():
    check_outputs([TensorSpec("y", F32, (1, 2))], [zeros(3, 2)], rows=3)
    with pytest.raises(ModelError, match="cannot have the shape"):
        check_outputs([TensorSpec("y", F32, (1, 2))], [zeros(3, 2)], rows=None)


def test_what_an_onnx_file_says_of_the_shape_of_its_output_is_not_held_against_it(tmp_path):
    path = save(
        tmp_path / "traced.onnx",
        [helper.make_node("Identity", ["x"], ["y"])],
        {"x": (TensorProto.FLOAT, ["batch", "length"])},
        {"y": (TensorProto.FLOAT, ["batch", 16])},
    )
    engine = OnnxRuntimeEngine.load(path, device="cpu")
    outputs = engine.run({"x": zeros(2, 5)})

    assert engine.outputs == (TensorSpec("y", F32, ("batch", 16)),)
    assert check_outputs(engine.outputs, outputs, rows=2)[0].shape == (2, 5)
