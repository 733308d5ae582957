"""Real ONNX Runtime: which models may have rows of different lengths in one batch, and what is said to the others."""

import numpy as np
import onnx_models as models
import pytest
from onnx import TensorProto, helper

from redserve.engine.length_cost import measure_padding
from redserve.engine.length_probe import judge_lengths
from redserve.engine.lengths import LengthBuckets
from redserve.engine.onnx_runtime import OnnxRuntimeEngine
from redserve.engine.row_runner import RowRunner
from redserve.errors import ModelLoadError

BUCKETS = LengthBuckets(sizes=(4, 8, 16))
_FLOAT, _INT = TensorProto.FLOAT, TensorProto.INT64


def judge(path, buckets=BUCKETS, *, batching="auto", row=None):
    return judge_lengths(OnnxRuntimeEngine.load(path, device="cpu", batching=batching), buckets, row=row)


def masked(folder, ids, mask, outputs, nodes, weights=None):
    """A model of two inputs with these shapes."""
    inputs = {"ids": (_FLOAT, ids), "attention_mask": (_FLOAT, mask)}
    return models.save(folder / "model.onnx", nodes, inputs, outputs, weights)


def product(folder, ids, mask, answer):
    return masked(
        folder, ids, mask, {"y": (_FLOAT, answer)}, [helper.make_node("Mul", ["ids", "attention_mask"], ["y"])]
    )


def test_a_model_that_obeys_its_mask_may_be_padded_and_its_outputs_have_their_axes(tmp_path):
    lengths, row = judge(models.attention(tmp_path / "model.onnx"))

    assert lengths.inputs == {"input_ids": 1, "attention_mask": 1}
    assert lengths.outputs == ((1,), (1, 2), ()), "tokens, their scores, the embedding"
    assert lengths.note == ""
    assert row["input_ids"].shape[0] == 1


def test_the_mask_may_have_another_name(tmp_path):
    path = models.attention(tmp_path / "model.onnx", mask="valid")

    lengths, _ = judge(path, LengthBuckets(sizes=(4,), mask="valid"))

    assert lengths.inputs == {"input_ids": 1, "valid": 1}
    with pytest.raises(ModelLoadError, match=r"the model has no input 'attention_mask' .* it has input_ids, valid"):
        judge(path)


def test_sizes_without_names_are_one_length(tmp_path):
    lengths, _ = judge(product(tmp_path, [None, None], [None, None], [None, None]))

    assert lengths.inputs == {"ids": 1, "attention_mask": 1}


def test_a_model_that_pays_no_heed_to_its_mask_is_refused(tmp_path):
    path = models.attention(tmp_path / "model.onnx", obeys=False)

    with pytest.raises(
        ModelLoadError, match="a row of 2 that is padded to 4 is answered otherwise than alone: output 'tok"
    ):
        judge(path)


def test_where_batching_is_insisted_on_it_is_padded_all_the_same_and_said(tmp_path):
    path = models.attention(tmp_path / "model.onnx", obeys=False)

    lengths, _ = judge(path, LengthBuckets(sizes=(4, 8), must=True), batching="on")

    assert lengths.outputs == ((1,), (1, 2), ())
    assert lengths.note.startswith("padding changes a row's answer by up to ")


@pytest.mark.parametrize(
    ("ids", "mask", "answer", "message"),
    [
        (["b", "n"], ["b", 4], ["b", "n"], r"input attention_mask float32 \[b, 4\] has no open sizes behind its rows"),
        (["b", "n", 1], ["b", "n", "m"], ["b", "n", "m"], "attention_mask .* has 2 open sizes behind its rows"),
        (["b", 1], ["b", "n"], ["b", "n"], "no input but the mask has an open size n"),
        (["b", "n", "n"], ["b", 1, "n"], ["b", "n", "n"], r"input ids float32 \[b, n, n\] has 2 sizes that could be"),
        ([1, "n"], [1, "n"], [1, "n"], "its rows share no batch: the model fixes axis 0 to 1: runs row by row"),
    ],
)
def test_a_model_without_one_length_is_refused(tmp_path, ids, mask, answer, message):
    with pytest.raises(ModelLoadError, match=f"^length_buckets: .*{message}"):
        judge(product(tmp_path, ids, mask, answer))


def test_an_output_that_cannot_be_cut_back_is_refused(tmp_path):
    nodes = [
        helper.make_node("Mul", ["ids", "attention_mask"], ["kept"]),
        helper.make_node("Concat", ["kept", "kept"], ["y"], axis=1),
    ]
    path = masked(tmp_path, ["b", "n"], ["b", "n"], {"y": (_FLOAT, ["b", "m"])}, nodes)

    with pytest.raises(
        ModelLoadError, match=r"'y' cannot be cut back: it has shape \[1, 4\] for a row of 2, and \[1, 8\]"
    ):
        judge(path)


def test_a_length_that_the_model_cannot_run_is_refused(tmp_path):
    nodes = [
        helper.make_node("Mul", ["ids", "attention_mask"], ["kept"]),
        helper.make_node("Shape", ["ids"], ["length"], start=1, end=2),
        helper.make_node("Slice", ["positions", "zero", "length"], ["own"]),
        helper.make_node("Add", ["kept", "own"], ["y"]),
    ]
    weights = {"positions": np.arange(8, dtype=np.float32), "zero": np.int64([0])}
    path = masked(tmp_path, ["b", "n"], ["b", "n"], {"y": (_FLOAT, ["b", "n"])}, nodes, weights)

    judge(
        path, LengthBuckets(sizes=(4, 8)), row={"ids": np.ones((1, 3), "f4"), "attention_mask": np.ones((1, 3), "f4")}
    )
    with pytest.raises(ModelLoadError, match="a row that is padded, or one of those lengths, does not run: "):
        judge(path, row={"ids": np.ones((1, 3), "f4"), "attention_mask": np.ones((1, 3), "f4")})


def test_a_model_on_which_no_made_up_row_runs_asks_for_a_sample(tmp_path):
    nodes = [
        helper.make_node("Mul", ["ids", "attention_mask"], ["kept"]),
        helper.make_node("ReduceMin", ["kept"], ["least"], keepdims=0),
        helper.make_node("Cast", ["least"], ["index"], to=_INT),
        helper.make_node("Gather", ["table", "index"], ["one"]),
        helper.make_node("Mul", ["kept", "one"], ["y"]),
    ]
    path = masked(tmp_path, ["b", "n"], ["b", "n"], {"y": (_FLOAT, ["b", "n"])}, nodes, {"table": np.zeros(0, "f4")})

    with pytest.raises(ModelLoadError, match=r"its rows share no batch: .*it runs on no made-up input"):
        judge(path)
    with pytest.raises(ModelLoadError, match="it cannot be tried, a sample is needed: no made-up row runs"):
        judge(path, batching="on")


def test_each_bucket_is_timed_and_its_worst_is_told_by_the_shortest_row(tmp_path):
    engine = OnnxRuntimeEngine.load(models.attention(tmp_path / "model.onnx"), device="cpu")
    lengths, row = judge_lengths(engine, BUCKETS)
    runs, now_s, run = [], 0.0, engine.run

    def timed(tensors):
        nonlocal now_s
        runs.append(tensors["input_ids"].shape)
        now_s += tensors["input_ids"].size / 1000
        return run(tensors)

    engine.run = timed
    first, second, third = measure_padding(engine, lengths, 5, row=row, clock=lambda: now_s)

    assert [(each.shortest, each.longest) for each in (first, second, third)] == [(2, 4), (5, 8), (9, 16)]
    assert second.shortest_alone_s == pytest.approx(0.005)
    assert second.longest_alone_s == pytest.approx(0.008)
    assert second.batch_s == pytest.approx(0.04)
    assert second.row_s == pytest.approx(0.008)
    assert second.worst_ratio == pytest.approx(1.6)
    assert set(runs) == {(5, 4), (5, 8), (5, 16), (1, 4), (1, 8), (1, 16), (1, 2), (1, 5), (1, 9)}


def test_a_length_on_another_axis_under_a_mask_of_booleans_is_padded_and_cut_back(tmp_path):
    path = models.save(
        tmp_path / "sound.onnx",
        [
            helper.make_node("Cast", ["valid"], ["kept"], to=_FLOAT),
            helper.make_node("Unsqueeze", ["kept", "middle"], ["kept_bands"]),
            helper.make_node("Mul", ["sound", "kept_bands"], ["own"]),
            helper.make_node("ReduceMax", ["own"], ["loudest"], axes=[2], keepdims=1),
            helper.make_node("Div", ["own", "loudest"], ["y"]),
        ],
        {"sound": (_FLOAT, ["batch", 3, "time"]), "valid": (TensorProto.BOOL, ["batch", "time"])},
        {"y": (_FLOAT, ["batch", 3, "time"])},
        {"middle": np.int64([1])},
    )
    engine = OnnxRuntimeEngine.load(path, device="cpu")
    lengths, _ = judge_lengths(engine, LengthBuckets(sizes=(4, 8), mask="valid"))
    random = np.random.default_rng(0)
    requests = [
        {"sound": random.random((rows, 3, time), np.float32), "valid": np.ones((rows, time), bool)}
        for rows, time in ((1, 5), (2, 8), (1, 6))
    ]

    assert (lengths.inputs, lengths.outputs) == ({"sound": 2, "valid": 1}, ((2,),))
    for request, (answer,) in zip(requests, RowRunner(engine, 8, lengths=lengths)(requests), strict=True):
        np.testing.assert_array_equal(answer, engine.run(request)[0])
