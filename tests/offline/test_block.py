from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.engine.tensors import Array, Tensors
from redserve.errors import BadRequest, ModelError, WrongResultCount
from redserve.offline.block import Block, Group, InputMark, is_full, rows_of_full_block, run_block, sort_rows

END = InputMark(0, 0, "")


def read(rows: Array) -> Tensors:
    if len(rows) > 1 and len(set(rows)) > 1:
        raise BadRequest("not of one length")
    if rows[0] < 0:
        raise BadRequest(f"{rows[0]} is negative", where="$")
    return {"x": np.tile(rows[:, None], (1, int(rows[0])))}


def block_of(*values: int) -> Block:
    return Block(len(values), [Group(range(len(values)), {"x": np.int64(values)})], {}, END)


class Runner:
    """Doubles, unless a batch holds -1; remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, requests: Sequence[Tensors]) -> list[list[Array] | Exception]:
        (request,) = requests
        self.batches.append(request["x"].tolist())
        if -1 in request["x"]:
            raise ModelError("there is a -1")
        return [[2 * request["x"]]]


def test_rows_of_one_shape_are_read_in_one_go_and_mistakes_cost_no_neighbour():
    groups, failures = sort_rows([np.int64([2, 2]), np.int64([3, -1, 2]), np.int64([2])], read)

    assert [(group.places, group.tensors["x"].tolist()) for group in groups] == [
        ([0, 1, 4, 5], [[2, 2]] * 4),
        ([2], [[3, 3, 3]]),
    ]
    assert {place: str(error) for place, error in failures.items()} == {3: "-1 is negative"}


def test_a_group_runs_in_batches_of_the_size():
    runner = Runner()

    answers = run_block(runner, block_of(*range(7)), max_batch_size=3)

    assert runner.batches == [[0, 1, 2], [3, 4, 5], [6]]
    assert [(list(places), outputs[0].tolist()) for places, outputs in answers.parts] == [
        ([0, 1, 2], [0, 2, 4]),
        ([3, 4, 5], [6, 8, 10]),
        ([6], [12]),
    ]


@given(st.lists(st.sampled_from([-1, 1, 2, 3]), min_size=1, max_size=40), st.integers(1, 16))
def test_exactly_the_rows_at_fault_fail_however_many_there_are(values, max_batch_size):
    answers = run_block(Runner(), block_of(*values), max_batch_size=max_batch_size)

    found = {
        place: int(value) for places, (output,) in answers.parts for place, value in zip(places, output, strict=True)
    }
    assert found == {place: 2 * value for place, value in enumerate(values) if value != -1}
    assert set(answers.failures) == {place for place, value in enumerate(values) if value == -1}


@pytest.mark.parametrize("error", [WrongResultCount(expected=2, got=1), ZeroDivisionError("by zero")])
def test_whatever_a_run_raises_is_the_answer_of_its_rows(error):
    def run(requests: Sequence[Tensors]) -> list[list[Array] | Exception]:
        raise error

    answers = run_block(run, block_of(1, 2), max_batch_size=2)

    assert not answers.parts
    assert all(str(error) in str(answers.failures[place]) for place in (0, 1))


@given(st.integers(0, 10**7), st.integers(1, 300))
def test_a_block_ends_after_full_batches_as_soon_as_there_are_enough(row_bytes, max_batch_size):
    rows = rows_of_full_block(row_bytes, max_batch_size=max_batch_size)

    assert is_full(rows, rows * row_bytes, max_batch_size=max_batch_size)
    before = rows - max_batch_size
    assert not before or not is_full(before, before * row_bytes, max_batch_size=max_batch_size)
