import pickle
from random import Random

import pytest

from redserve.server.account import Account, Places, left_by, total
from redserve.server.statistics import ModelStatistics


def statistics(*, rows, queue_s):
    model = ModelStatistics()
    model.succeeded(1.0, queue_s=queue_s, compute_s=0.25)
    model.failed(0.5)
    model.ran(rows, 0.25)
    return model


def test_statistics_of_all_processes_are_added_up_by_model_and_batch_size():
    one = Account(statistics={("m", "1"): statistics(rows=2, queue_s=0.5)})
    other = Account(
        statistics={("m", "1"): statistics(rows=4, queue_s=0.25), ("n", "1"): statistics(rows=2, queue_s=0)}
    )

    everything = total([one, other]).statistics
    described = everything["m", "1"].describe("m", "1")

    assert set(everything) == {("m", "1"), ("n", "1")}
    assert described["inference_count"] == 6
    assert described["inference_stats"]["success"] == {"count": 2, "ns": 2_000_000_000}
    assert described["inference_stats"]["fail"] == {"count": 2, "ns": 1_000_000_000}
    assert described["inference_stats"]["queue"] == {"count": 2, "ns": 750_000_000}
    assert [(batch["batch_size"], batch["compute_infer"]["count"]) for batch in described["batch_stats"]] == [
        (2, 1),
        (4, 1),
    ]


def test_a_sum_leaves_its_parts_alone_and_survives_the_way_to_another_process():
    part = Account(statistics={("m", "1"): statistics(rows=2, queue_s=0.5)})
    alone = part.statistics["m", "1"].describe("m", "1")

    sent = pickle.loads(pickle.dumps(total([part, part])))

    assert part.statistics["m", "1"].describe("m", "1") == alone
    assert sent.statistics["m", "1"].describe("m", "1")["inference_count"] == 4


def test_what_is_not_ready_in_one_process_is_not_ready_at_all_until_that_one_is_gone():
    one, other = Account(not_ready={"m": "loading"}), Account(not_ready={"n": "failed"})

    assert total([one, other]).not_ready == {"m": "loading", "n": "failed"}
    assert total([left_by(one), other]).not_ready == {"n": "failed"}


@pytest.mark.parametrize("died", range(3))
def test_no_sum_changes_in_any_digit_when_a_worker_dies(died):
    random = Random(died)
    for _ in range(100):
        running = {place: Account({"seconds": ("count", {(): ([random.random()], {})})}) for place in range(3)}
        places = Places(3)
        before = places.total(running).numbers
        places.left(died, running.pop(died))
        assert places.total(running).numbers == before
        running[died] = Account()
        assert places.total(running).numbers == before
