import math

from redserve.bench.arrivals import Constant, Replay
from redserve.bench.pacer import Pacer


def test_what_is_due_is_handed_out_once_with_the_time_it_was_planned_for():
    pacer = Pacer(Constant(10), end_s=1)

    assert pacer.take(now_s=0.25, limit=99) == [0.0, 0.1, 0.2]
    assert pacer.take(now_s=0.25, limit=99) == []
    assert pacer.next_s() == 0.3


def test_a_sender_that_fell_behind_gets_everything_it_missed():
    pacer = Pacer(Replay([0.0, 0.1, 0.2, 0.3]), end_s=1)

    assert pacer.take(now_s=5.0, limit=3) == [0.0, 0.1, 0.2]
    assert pacer.next_s() == 0.3
    assert pacer.take(now_s=5.0, limit=3) == [0.3]


def test_nothing_is_planned_at_or_after_the_end():
    pacer = Pacer(Constant(2), end_s=1)

    assert pacer.take(now_s=9, limit=99) == [0.0, 0.5]
    assert pacer.next_s() == math.inf


def test_what_was_due_and_not_taken_is_counted_and_what_is_not_due_yet_is_not():
    pacer = Pacer(Constant(10), end_s=1)
    pacer.take(now_s=0.1, limit=1)

    assert pacer.drop(now_s=0.55) == 5
    assert pacer.take(now_s=2, limit=99) == []
