"""What is answered in time when more arrives than can be served: the real Batcher in virtual time.

Fewer requests and seeds than in `benchmarks/overload_policies.py`, which compares all cells and holds the same gates.
"""

import statistics
from dataclasses import replace

import pytest

from batching.overload import KNOWN, UNSEEN, Policy, fifo, goodput, slo
from batching.rivals import RIVALS
from redserve.compiled import IS_COMPILED

WORKLOADS = {**KNOWN, **UNSEEN}


def runs(name: str, load: float, policy: Policy, *, count: int, seeds: int) -> list[float]:
    """Goodput in percent of the capacity, by seed."""
    workload = WORKLOADS[name]
    fewer = replace(workload, count=min(count, workload.count))
    return [goodput(fewer, load, policy, seed=seed) for seed in range(1, seeds + 1)]


@pytest.mark.parametrize("load", [1.2, 2.0])
@pytest.mark.parametrize("name", KNOWN)
def test_nearly_all_of_the_capacity_is_answered_in_time(name: str, load: float):
    share = statistics.mean(runs(name, load, slo, count=10_000, seeds=2))

    assert share >= (95 if name in "ABCF" else 90)


@pytest.mark.parametrize("name", KNOWN)
def test_at_normal_load_deadlines_cost_at_most_a_point(name: str):
    own, plain = (statistics.mean(runs(name, 0.7, policy, count=6_000, seeds=2)) for policy in (slo, fifo))

    assert own >= plain - 1
    assert plain > 65


@pytest.mark.skipif(IS_COMPILED, reason="the others derive from the real queue, which is compiled")
@pytest.mark.parametrize(
    ("name", "load"), [*((name, 2.0) for name in UNSEEN), *((name, 5.0) for name in KNOWN)], ids=str
)
def test_it_is_nearly_as_good_as_the_best_of_the_others_where_no_choice_was_made(name: str, load: float):
    own = runs(name, load, slo, count=8_000, seeds=1)
    best = max(runs(name, load, rival, count=8_000, seeds=1)[0] for rival in RIVALS.values())

    assert own[0] >= 0.95 * best
    assert best > 25
