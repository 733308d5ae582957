from array import array

import pytest

from redserve.bench.arrivals import Constant, Share
from redserve.bench.load import Load
from redserve.bench.orders import Progress
from redserve.bench.processes import share_of
from redserve.bench.progress import Window
from redserve.bench.worker import is_too_much


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_shares_of_a_load_are_together_the_load(count):
    requests = [bytes([number]) for number in range(5)]
    load = Load(host="h", port=1, requests=requests, arrivals=Constant(9), connections=10, max_connections=100)
    shares = [share_of(load, index=index, count=count) for index in range(count)]

    assert sum(share.connections for share in shares) == 10
    assert sum(share.max_connections for share in shares) == 100
    assert set().union(*(share.requests for share in shares)) == set(requests)
    assert [share.arrivals for share in shares] == [Share(load.arrivals, index, count) for index in range(count)]


@pytest.mark.parametrize(
    ("ok", "failed", "ratio", "is_broken_off"),
    [(0, 500, 0.95, True), (100, 0, 0.95, False), (60, 40, 0.5, False), (40, 60, 0.5, True), (0, 5, 0.1, False)],
)
def test_a_run_is_broken_off_when_too_many_fail_and_not_for_a_few(ok, failed, ratio, is_broken_off):
    assert is_too_much(ok, failed, ratio) == is_broken_off


def test_a_run_in_which_all_may_fail_is_never_broken_off():
    assert not is_too_much(0, 10_000, 1.0)


def test_the_live_line_shows_the_last_second_of_all_processes():
    window = Window()
    window.add(1.0, Progress(ok=1000, failed=0, latencies_us=array("I", [9_000_000] * 1000)))
    window.add(5.0, Progress(ok=100, failed=3, latencies_us=array("I", [1000] * 100)))
    window.add(5.2, Progress(ok=100, failed=0, latencies_us=array("I", [2000] * 100)))

    assert window.describe(5.2).split() == ["200/s", "p50", "1.50", "ms", "p99", "2.00", "ms", "3", "failed"]


def test_the_live_line_has_something_to_say_before_the_first_answer():
    assert Window().describe(0.0).split()[0] == "0/s"
