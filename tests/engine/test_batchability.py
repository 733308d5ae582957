"""Real ONNX Runtime and one small model for each way in which batches go wrong."""

import threading

import numpy as np
import onnx_models as models
import pytest

from redserve.engine.base import Batchability
from redserve.engine.batchability import judge_batchability
from redserve.engine.onnx_runtime import OnnxRuntimeEngine
from redserve.engine.tensors import TensorSpec
from redserve.errors import ModelError, ModelLoadError


def judge(path, batching="auto"):
    return OnnxRuntimeEngine.load(path, device="cpu", batching=batching).batchability


@pytest.mark.parametrize(
    "build", [models.row_encoding, models.text, models.token_sum, models.two_outputs_renamed, models.identity]
)
def test_a_model_whose_outputs_follow_its_rows_takes_any_number_of_them(build, tmp_path):
    judged = judge(build(tmp_path))
    assert (judged.mode, judged.rows, judged.note) == ("dynamic", None, "")
    assert judged.reason == "axis 0 of every input and output counts rows, as runs of 1 and 3 show"


def test_an_anonymous_first_axis_is_as_good_as_a_named_one(tmp_path):
    assert judge(models.row_encoding(tmp_path, batch=None)).mode == "dynamic"


def test_a_batch_of_one_runs_row_by_row(tmp_path):
    judged = judge(models.row_encoding(tmp_path, batch=1))
    assert (judged.mode, judged.rows) == ("fixed", 1)
    assert judged.reason == "the model fixes axis 0 to 1: runs row by row"


def test_a_fixed_batch_is_padded(tmp_path):
    judged = judge(models.row_encoding(tmp_path, batch=4))
    assert (judged.mode, judged.rows) == ("fixed", 4)
    assert judged.reason == "the model fixes axis 0 to 4: runs padded to 4 rows"


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (models.scalar_input, "input 'factor' is a scalar, or declares no shape, so it has no rows"),
        (models.batch_on_axis_1, "has 'batch' on axis 1, which counts rows elsewhere"),
        (models.time_major, "has its batch on axis 1, not on axis 0"),
        (models.state_beside_rows, "do not have the same rows"),
        (models.rows_lost, "output 'y' has shape [1, 4] for 3 rows, so its axis 0 is not the rows"),
        (models.baked_batch, "a batch fails where another runs"),
        (models.picky, "it runs on no made-up input"),
        (models.empty_input, "input 'x' is declared to be empty"),
    ],
)
def test_a_model_without_rows_runs_each_request_as_it_came_and_says_why(build, why, tmp_path):
    judged = judge(build(tmp_path))
    assert judged.mode == "whole"
    assert judged.reason.startswith("each request runs as it came: ")
    assert why in judged.reason
    assert "\n" not in judged.reason


@pytest.mark.parametrize("build", [models.mixing, models.shared_among_rows])
def test_rows_that_change_each_other_run_one_by_one_and_it_says_why(build, tmp_path):
    judged = judge(build(tmp_path))
    assert (judged.mode, judged.rows) == ("fixed", 1)
    assert "rows in one run change each other's answers (by up to 0." in judged.reason


@pytest.mark.parametrize("build", [models.scaled_by_the_largest, models.positive_sum, models.same_as_the_first])
def test_rows_that_change_each_other_only_where_they_are_very_different_run_one_by_one_too(build, tmp_path):
    judged = judge(build(tmp_path))
    assert (judged.mode, judged.rows) == ("fixed", 1)


def test_a_model_that_runs_for_very_long_on_very_different_rows_is_interrupted_and_judged_by_others():
    interrupted = threading.Event()

    def run(tensors):
        if np.abs(tensors["x"]).max() > 1:
            assert interrupted.wait(60)
            raise ModelError("the run was interrupted")
        return [tensors["x"]]

    specs = [TensorSpec("x", np.dtype(np.float32), ("batch", 4))]
    judged = judge_batchability(run, specs, specs, interrupt=lambda thread_id: interrupted.set())

    assert judged.mode == "dynamic"


@pytest.mark.parametrize("build", [models.mixing, models.shared_among_rows])
def test_batching_on_lets_rows_change_each_other_and_notes_it(build, tmp_path):
    judged = judge(build(tmp_path), "on")
    assert judged.mode == "dynamic"
    assert judged.note.startswith("a row's answer changes with its batch mates: by up to 0.")


def test_a_fixed_axis_whose_entries_change_each_other_is_no_batch(tmp_path):
    judged = judge(models.mixing(tmp_path, batch=4))
    assert judged.mode == "whole"
    assert "its 4 rows are not independent" in judged.reason


def test_batching_on_overrules_rows_that_change_each_other(tmp_path):
    judged = judge(models.mixing(tmp_path, batch=4), "on")
    assert (judged.mode, judged.rows) == ("fixed", 4)
    assert "changes with its batch mates" in judged.note


def test_batching_on_overrules_names_and_a_probe_that_could_not_be_made(tmp_path):
    assert judge(models.time_major(tmp_path), "on").mode == "dynamic"
    judged = judge(models.picky(tmp_path), "on")
    assert judged.mode == "dynamic"
    assert judged.note.startswith("unproven: it runs on no made-up input")


@pytest.mark.parametrize("build", [models.scalar_input, models.rows_lost, models.baked_batch, models.state_beside_rows])
def test_batching_on_for_a_model_that_cannot_is_refused_at_load(build, tmp_path):
    path = build(tmp_path)
    with pytest.raises(ModelLoadError, match="batching is on, but") as caught:
        judge(path, "on")
    assert str(caught.value).startswith(f"{path}: ")


def test_batching_off_runs_each_request_as_it_came(tmp_path):
    judged = judge(models.row_encoding(tmp_path), "off")
    assert judged == Batchability(mode="whole", reason="batching is turned off: each request runs as it came")


@pytest.mark.parametrize("wrong", [("fixed", None), ("dynamic", 4), ("fixed", 0)])
def test_rows_belong_to_the_fixed_mode(wrong):
    mode, rows = wrong
    with pytest.raises(ValueError, match="rows"):
        Batchability(mode=mode, rows=rows, reason="")


def test_only_whole_is_not_row_wise():
    assert Batchability(mode="fixed", rows=1, reason="").is_row_wise
    assert not Batchability(mode="whole", reason="").is_row_wise


def test_the_rows_of_a_run_may_be_an_integer_of_numpy():
    assert type(Batchability(mode="fixed", rows=np.int64(4), reason="the test says so").rows) is int
