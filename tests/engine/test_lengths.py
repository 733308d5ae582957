"""Requests of different lengths in one batch: each is answered as if it had been alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import attention

from redserve.engine.lengths import LengthBuckets, Lengths
from redserve.engine.onnx_runtime import OnnxRuntimeEngine
from redserve.engine.row_runner import RowRunner
from redserve.engine.tensors import group_of
from redserve.errors import BadRequest

BUCKETS = LengthBuckets(sizes=(4, 8))
LENGTHS = Lengths(buckets=BUCKETS, inputs={"input_ids": 1, "attention_mask": 1}, outputs=((1,), (1, 2), ()))


def text(*ids, rows=1):
    tokens = np.array([ids] * rows, np.int64)
    return {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return OnnxRuntimeEngine.load(attention(tmp_path_factory.mktemp("model") / "model.onnx"), device="cpu")


@pytest.fixture
def fed(engine, monkeypatch):
    """The shapes that the engine is given."""
    shapes, run = [], engine.run

    def watched(tensors):
        shapes.append(tensors["input_ids"].shape)
        return run(tensors)

    monkeypatch.setattr(engine, "run", watched)
    return shapes


def test_rows_of_one_bucket_are_answered_as_if_alone_in_one_run(engine, fed):
    requests = [text(7, 2, 5), text(4, 4, 1, 6, rows=2), text(9)]
    alone = [engine.run(request) for request in requests]
    fed.clear()

    together = RowRunner(engine, 8, lengths=LENGTHS)(requests)

    assert fed == [(4, 4)]
    for mine, lonely in zip(together, alone, strict=True):
        assert [output.shape for output in mine] == [output.shape for output in lonely]
        for one, two in zip(mine, lonely, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-6)


def test_a_batch_is_padded_to_its_longest_row_and_a_row_alone_to_nothing(engine, fed):
    runner = RowRunner(engine, 8, lengths=LENGTHS)

    runner([text(1, 2, 3, 4, 5)])
    runner([text(1, 2, 3, 4, 5), text(1, 2, 3, 4, 5, 6)])

    assert fed == [(1, 5), (2, 6)]


def test_nothing_of_a_batch_is_left_in_the_next_one(engine):
    runner = RowRunner(engine, 8, lengths=LENGTHS)
    runner([text(*[31] * 8)] * 8)

    first, second = runner([text(1, 2, 3, 4, 5), text(6, 7, 8, 9, 10, 11, 12)])

    np.testing.assert_allclose(first[2], engine.run(text(1, 2, 3, 4, 5))[2], atol=1e-6)
    np.testing.assert_allclose(second[2], engine.run(text(6, 7, 8, 9, 10, 11, 12))[2], atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.lists(st.integers(0, 31), min_size=1, max_size=8)), min_size=1, max_size=5)
)
def test_whatever_meets_in_a_bucket_keeps_its_answers(engine, drawn):
    requests = [text(*ids, rows=rows) for rows, ids in drawn]
    by_group = {}
    for request in requests:
        by_group.setdefault(LENGTHS.group_of(request), []).append(request)
    runner = RowRunner(engine, 16, lengths=LENGTHS)

    for group in by_group.values():
        for request, answer in zip(group, runner(group), strict=True):
            for one, two in zip(answer, engine.run(request), strict=True):
                assert one.flags.c_contiguous
                np.testing.assert_allclose(one, two, atol=1e-5)


def test_a_length_may_lie_on_any_axis_beside_inputs_that_have_none():
    lengths = Lengths(buckets=BUCKETS, inputs={"sound": 2, "mask": 1}, outputs=())
    requests = [
        {"sound": np.full((1, 2, 3), 5, np.float32), "mask": np.ones((1, 3), bool), "speaker": np.float32([[1]])},
        {"sound": np.full((2, 2, 1), 6, np.float32), "mask": np.ones((2, 1), bool), "speaker": np.float32([[2], [3]])},
    ]
    rows = np.full((3, 2, 3), 9, np.float32)

    lengths.pad(requests, "sound", rows)

    assert rows.tolist() == [[[5, 5, 5]] * 2, [[6, 0, 0]] * 2, [[6, 0, 0]] * 2]


def test_text_is_padded_with_empty_text():
    lengths = Lengths(buckets=BUCKETS, inputs={"words": 1, "mask": 1}, outputs=())
    rows = np.full((1, 2), "old", object)

    lengths.pad([{"words": np.array([["new"]], object)}], "words", rows)

    assert rows.tolist() == [["new", ""]]


def test_a_bucket_is_a_group_whatever_the_lengths_in_it():
    groups = [LENGTHS.group_of(text(*range(length))) for length in range(1, 9)]

    assert len(set(groups[:4])) == len(set(groups[4:])) == 1
    assert groups[3] != groups[4]


def test_a_row_longer_than_any_bucket_meets_its_equals_only():
    assert LENGTHS.group_of(text(*range(9))) == group_of(text(*range(9)))
    assert LENGTHS.group_of(text(*range(9))) != LENGTHS.group_of(text(*range(10)))


def test_a_row_of_which_nothing_counts_is_padded_by_nobody():
    nothing = text(1, 2, 3) | {"attention_mask": np.zeros((1, 3), np.int64)}

    assert LENGTHS.group_of(nothing) == group_of(nothing)


def test_inputs_of_two_lengths_are_refused_with_the_place():
    with pytest.raises(BadRequest, match="input 'input_ids' has 3 along axis 1, and 'attention_mask' 2") as refused:
        LENGTHS.group_of(text(1, 2, 3) | {"attention_mask": np.ones((1, 2), np.int64)})

    assert refused.value.where == "input_ids"


@pytest.mark.parametrize("sizes", [(), (0, 4), (4, 4), (8, 4)])
def test_buckets_ascend_from_one_on(sizes):
    with pytest.raises(ValueError, match="the lengths of buckets ascend from 1 on"):
        LengthBuckets(sizes=sizes)
