from itertools import combinations

import pytest

from redserve.batching import BatchPolicy
from redserve.batching.isolate import parts_to_run


def run(size: int, bad: set[int], max_reruns: int = 100) -> tuple[set[int], list[range]]:
    """Which requests got a result, and what was run, when a part fails that has one of `bad` in it."""
    plan = parts_to_run(size, max_reruns=max_reruns)
    done: set[int] = set()
    runs: list[range] = []
    part = next(plan, None)
    while part is not None:
        runs.append(part)
        is_fine = not bad & set(part)
        if is_fine:
            assert not done & set(part), "somebody ran twice who was answered already"
            done |= set(part)
        try:
            part = plan.send(is_fine)
        except StopIteration:
            part = None
    return done, runs


def test_a_batch_that_succeeds_runs_once():
    assert run(32, set()) == (set(range(32)), [range(32)])


def test_a_single_request_that_fails_is_not_run_again():
    assert run(1, {0}) == (set(), [range(1)])


@pytest.mark.parametrize("bad", range(32))
def test_one_bad_of_32_costs_at_most_10_more_runs_and_nobody_else_an_answer(bad: int):
    done, runs = run(32, {bad})

    assert done == set(range(32)) - {bad}
    assert 6 <= len(runs) - 1 <= 10
    assert range(bad, bad + 1) in runs  # it was tried alone before it failed


def test_a_half_that_must_hold_the_fault_is_halved_without_being_run():
    _, runs = run(8, {7})

    assert runs == [range(8), range(4), range(4, 6), range(6, 7), range(7, 8)]


def test_several_bad_ones_are_all_found():
    done, _ = run(32, {0, 1, 17, 31})

    assert done == set(range(32)) - {0, 1, 17, 31}


@pytest.mark.parametrize("max_reruns", range(12))
def test_the_budget_is_kept_and_spent_on_the_widest_parts_first(max_reruns: int):
    done, runs = run(32, {0, 31}, max_reruns)

    assert len(runs) - 1 <= max_reruns
    assert len(done) == {0: 0, 1: 0, 2: 0, 3: 0, 4: 8, 5: 16}.get(max_reruns, len(done))
    if max_reruns >= 8:
        assert len(done) >= 24


def test_no_budget_fails_the_batch_whole():
    assert run(4, {2}, max_reruns=0) == (set(), [range(4)])


@pytest.mark.parametrize(("size", "faults"), [(128, 1), (128, 2), (32, 3)])
def test_the_default_budget_finds_every_fault_of_a_few(size: int, faults: int):
    budget = BatchPolicy().max_reruns
    for bad in combinations(range(size), faults):
        done, _ = run(size, set(bad), budget)
        assert len(done) == size - faults, bad
