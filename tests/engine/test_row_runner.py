import threading

import numpy as np
import pytest
from puppet import DYNAMIC, WHOLE, PuppetEngine, fixed

from redserve.engine.row_runner import RowRunner
from redserve.engine.tensors import TensorSpec
from redserve.errors import ModelError, WrongResultCount

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


def row(*values, dtype=np.float32):
    return {"x": np.array([values], dtype)}


def rows(*values):
    return {"x": np.array([[value] for value in values], np.float32)}


def test_each_request_gets_the_answers_to_its_own_rows():
    engine = PuppetEngine()
    results = RowRunner(engine, 8)([rows(1), rows(2, 3), rows(4)])

    assert [result[0].tolist() for result in results] == [[[3]], [[5], [7]], [[9]]]
    assert [batch["x"].tolist() for batch in engine.batches] == [[[1], [2], [3], [4]]]


def test_results_are_views_of_one_output():
    results = RowRunner(PuppetEngine(), 8)([rows(1), rows(2)])
    assert results[0][0].base is results[1][0].base is not None


def test_results_survive_the_next_batch_in_the_same_buffer():
    runner = RowRunner(PuppetEngine(), 8)
    first = runner([rows(1), rows(2)])
    runner([rows(8), rows(9)])
    assert [result[0].tolist() for result in first] == [[[3]], [[5]]]


def test_a_request_alone_is_fed_from_its_own_memory():
    engine, request = PuppetEngine(), rows(1, 2)
    RowRunner(engine, 8)([request])
    assert engine.fed[0]["x"] is request["x"]


def test_a_request_alone_is_made_contiguous():
    engine = PuppetEngine()
    results = RowRunner(engine, 8)([{"x": np.arange(6, dtype=np.float32).reshape(2, 3).T}])
    assert engine.fed[0]["x"].flags.c_contiguous
    assert results[0][0].tolist() == [[1, 7], [3, 9], [5, 11]]


def test_rows_that_are_not_contiguous_are_gathered_right():
    request = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)[:, ::2]}
    assert RowRunner(PuppetEngine(), 8)([request, row(5, 6)])[0][0].tolist() == [[1, 5], [9, 13]]


def test_buffers_are_used_again_for_the_same_shapes():
    engine = PuppetEngine()
    runner = RowRunner(engine, 8)
    runner([rows(1), rows(2)])
    runner([rows(3), rows(4), rows(5)])
    assert np.shares_memory(engine.fed[0]["x"], engine.fed[1]["x"])


def test_only_the_latest_shape_groups_keep_their_buffers():
    engine = PuppetEngine()
    runner = RowRunner(engine, 8, max_groups=2)
    narrow, middle, wide = ([row(*[1] * width)] * 2 for width in (1, 2, 3))
    for group in (narrow, middle, narrow, wide, narrow, middle):
        runner(group)
    fed = [inputs["x"] for inputs in engine.fed]
    assert np.shares_memory(fed[0], fed[4])
    assert not np.shares_memory(fed[1], fed[5])


def test_the_order_of_names_in_a_request_is_its_own():
    spec = [TensorSpec(name, np.dtype(np.float32), ("batch",)) for name in "ab"]
    engine = PuppetEngine(
        inputs=tuple(spec), outputs=tuple(spec[:1]), answer=lambda tensors: [tensors["a"] * 10 + tensors["b"]]
    )
    one, two = np.array([1], np.float32), np.array([2], np.float32)
    results = RowRunner(engine, 8)([{"a": one, "b": two}, {"b": two, "a": one}])
    assert [result[0].tolist() for result in results] == [[12], [12]]


def test_a_fixed_batch_is_padded_with_its_last_row_and_cut():
    engine = PuppetEngine(fixed(4))
    results = RowRunner(engine, 4)([rows(1), rows(2)])

    assert [batch["x"].tolist() for batch in engine.batches] == [[[1], [2], [2], [2]]]
    assert [result[0].tolist() for result in results] == [[[3]], [[5]]]


def test_a_fixed_batch_that_is_full_is_not_copied():
    engine, request = PuppetEngine(fixed(2)), rows(1, 2)
    RowRunner(engine, 2)([request])
    assert engine.fed[0]["x"] is request["x"]


def test_more_rows_than_a_fixed_batch_take_several_runs():
    engine = PuppetEngine(fixed(2))
    results = RowRunner(engine, 3)([rows(1, 2), rows(3)])
    assert [batch["x"].tolist() for batch in engine.batches] == [[[1], [2]], [[3], [3]]]
    assert [result[0].tolist() for result in results] == [[[3], [5]], [[7]]]


def test_a_model_of_one_row_runs_row_by_row():
    engine = PuppetEngine(fixed(1))
    results = RowRunner(engine, 4)([rows(1), rows(2, 3)])
    assert [len(batch["x"]) for batch in engine.batches] == [1, 1, 1]
    assert [result[0].tolist() for result in results] == [[[3]], [[5], [7]]]


def test_requests_to_a_model_without_rows_run_one_by_one():
    engine = PuppetEngine(WHOLE)
    results = RowRunner(engine, 4)([rows(1), rows(2, 3)])
    assert [result[0].tolist() for result in results] == [[[3]], [[5], [7]]]
    assert [len(batch["x"]) for batch in engine.batches] == [1, 2]


def test_a_scalar_is_run_as_one():
    scalar = (TensorSpec("x", np.dtype(np.float32), ()),)
    engine = PuppetEngine(WHOLE, inputs=scalar, outputs=scalar)
    (result,) = RowRunner(engine, 4)([{"x": np.float32(1)}])
    assert result[0].tolist() == 3
    assert engine.batches[0]["x"].shape == ()


def test_a_request_that_fails_alone_fails_alone():
    def answer(tensors):
        if tensors["x"].sum() > 5:
            raise ModelError("too much")
        return [tensors["x"]]

    good, bad = RowRunner(PuppetEngine(WHOLE, answer), 4)([rows(1), rows(9)])
    assert good[0].tolist() == [[1]]
    assert isinstance(bad, ModelError)


@pytest.mark.parametrize("wrong", [np.zeros((3, 1)), np.zeros((1, 1)), np.zeros((0, 1)), np.float64(0)])
@pytest.mark.parametrize("batchability", [DYNAMIC, fixed(2)])
def test_another_number_of_rows_fails_the_batch(batchability, wrong):
    outputs = tuple(TensorSpec(*described) for described in (("y", F32, (None, None)), ("z", F64, (None, None))))
    engine = PuppetEngine(
        batchability, outputs=outputs, answer=lambda tensors: [tensors["x"].copy(), np.asarray(wrong)]
    )
    with pytest.raises(WrongResultCount) as caught:
        RowRunner(engine, 2)([rows(1), rows(2)])
    assert caught.value.expected == 2


@pytest.mark.parametrize("mode", [DYNAMIC, fixed(1), fixed(2)])
def test_an_engine_that_answers_with_its_input_does_not_let_the_next_batch_change_the_answers(mode):
    runner = RowRunner(PuppetEngine(mode, answer=lambda tensors: [tensors["x"]]), 4)
    first = runner([rows(1), rows(2)])
    second = runner([rows(8), rows(9)])
    assert [result[0].tolist() for result in first] == [[[1]], [[2]]]
    assert [result[0].tolist() for result in second] == [[[8]], [[9]]]


def test_an_answer_of_another_kind_than_promised_is_given_to_nobody():
    runner = RowRunner(PuppetEngine(answer=lambda tensors: [tensors["x"].astype(np.float64)]), 4)
    with pytest.raises(ModelError, match="'y' must be float32, and a run answered with float64"):
        runner([rows(1), rows(2)])


def test_text_is_gathered_like_numbers():
    spec = (TensorSpec("x", np.dtype(np.object_), ("batch",)),)
    engine = PuppetEngine(inputs=spec, outputs=spec, answer=lambda tensors: [tensors["x"].copy()])
    results = RowRunner(engine, 4)([{"x": np.array(["a", "bb"], object)}, {"x": np.array(["c"], object)}])
    assert [result[0].tolist() for result in results] == [["a", "bb"], ["c"]]


def test_an_interrupt_reaches_the_thread_that_runs_and_no_other():
    def answer(tensors):
        runner.interrupt()
        return [tensors["x"]]

    engine = PuppetEngine(answer=answer)
    runner = RowRunner(engine, 4)
    thread = threading.Thread(target=runner, args=([rows(1)],))
    thread.start()
    thread.join()
    assert engine.interrupted_threads == [thread.ident]
    assert thread.ident != threading.get_ident()


def test_an_interrupt_without_a_run_does_nothing():
    engine = PuppetEngine()
    runner = RowRunner(engine, 4)
    runner.interrupt()
    assert engine.interrupted_threads == []
    assert runner([rows(1)])[0][0].tolist() == [[3]]


def test_an_interrupt_ends_what_is_left_of_a_batch_of_several_runs():
    def answer(tensors):
        runner.interrupt()
        return [tensors["x"]]

    engine = PuppetEngine(fixed(1), answer)
    runner = RowRunner(engine, 4)
    with pytest.raises(ModelError, match="interrupted"):
        runner([rows(1), rows(2), rows(3)])
    assert len(engine.batches) == 1


def test_a_hung_call_that_comes_back_leaves_the_call_that_replaced_it_alone():
    hung, may_return, replaced, may_end = (threading.Event() for _ in range(4))

    def answer(tensors):
        if tensors["x"][0, 0] == 1:
            hung.set()
            may_return.wait(20)
        else:
            replaced.set()
            may_end.wait(20)
        return [tensors["x"]]

    engine = PuppetEngine(answer=answer)
    runner = RowRunner(engine, 4)
    first = threading.Thread(target=runner, args=([rows(1)],))
    second = threading.Thread(target=runner, args=([rows(2)],))
    first.start()
    assert hung.wait(20)
    second.start()
    assert replaced.wait(20)
    may_return.set()
    first.join()

    runner.interrupt()
    may_end.set()
    second.join()

    assert engine.interrupted_threads == [second.ident]


def test_a_hung_call_keeps_its_buffers_to_itself_even_when_it_comes_back():
    hung, may_return = threading.Event(), threading.Event()

    def answer(tensors):
        if tensors["x"][0, 0] == 1:
            hung.set()
            may_return.wait(20)
        return [tensors["x"].copy()]

    engine = PuppetEngine(answer=answer)
    runner = RowRunner(engine, 4)
    runner([rows(8), rows(9)])
    thread = threading.Thread(target=runner, args=([rows(1), rows(2)],))
    thread.start()
    assert hung.wait(20)
    runner([rows(3), rows(4)])
    may_return.set()
    thread.join()
    runner([rows(5), rows(6)])

    first, hanging, second, third = (fed["x"] for fed in engine.fed)
    assert np.shares_memory(first, hanging)
    assert hanging.tolist() == [[1], [2]]
    assert not np.shares_memory(hanging, second)
    assert np.shares_memory(second, third)


@pytest.mark.parametrize("wrong", [{"max_batch_size": 0}, {"max_batch_size": 1, "max_groups": 0}])
def test_bounds_below_one_are_refused(wrong):
    with pytest.raises(ValueError, match="must be >= 1"):
        RowRunner(PuppetEngine(), **wrong)
