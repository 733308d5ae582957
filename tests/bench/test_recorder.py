import pytest

from redserve.bench.connection import Departure
from redserve.bench.load import Load
from redserve.bench.recorder import TallyRecorder
from redserve.bench.sender import Sender
from redserve.bench.tally import MOST_REASONS, Tally


def departure(planned_s: float, *, taken_s: float | None = None, sent_s: float | None = None) -> Departure:
    taken_s = planned_s if taken_s is None else taken_s
    return Departure(0, planned_s, taken_s, taken_s if sent_s is None else sent_s)


def recorded(recorder: TallyRecorder, *, sent_for_s: float = 2.0) -> Tally:
    sender = Sender(Load(host="h", port=1, requests=[b"x"]), recorder)
    sender.sent_for_s = sent_for_s
    return recorder.tally(sender)


def test_latency_counts_from_the_planned_time_and_its_parts_are_kept_apart():
    recorder = TallyRecorder(duration_s=2)
    recorder.answered(departure(1.0, taken_s=1.001, sent_s=1.003), ended_s=1.010, status=200, body=b"abc")
    tally = recorded(recorder)

    assert tally.latency.max_s() == pytest.approx(0.010, rel=1e-3)
    assert tally.own_delay.max_s() == pytest.approx(0.001, rel=2e-3)
    assert tally.connection_wait.max_s() == pytest.approx(0.002, rel=2e-3)
    assert tally.received_bytes == 3


def test_quick_refusals_do_not_make_the_latency_look_good():
    recorder = TallyRecorder(duration_s=2)
    recorder.answered(departure(0.1), ended_s=0.2, status=200, body=b"")
    recorder.answered(departure(0.1), ended_s=0.101, status=503, body=b"")
    tally = recorded(recorder)

    assert tally.latency.percentile_s(1) == pytest.approx(0.1, rel=2e-3)
    assert tally.failed_latency.max_s() == pytest.approx(0.001, rel=2e-3)
    assert (tally.ok, tally.failed, tally.planned) == (1, 1, 2)


def test_failures_are_counted_by_status_and_reason_with_one_body_each():
    recorder = TallyRecorder(duration_s=2)
    for number in range(3):
        body = b'{"error":{"reason":"queue_full","message":"%d rows wait"}}' % number
        recorder.answered(departure(0.1), ended_s=0.2, status=503, body=body)
    recorder.answered(departure(0.1), ended_s=0.2, status=502, body=b"<html>bad gateway</html>")
    recorder.unanswered(departure(0.1), ended_s=0.2, reason="connection_lost", detail="reset")
    tally = recorded(recorder)

    assert tally.failures == {"503 queue_full": 3, "502": 1, "connection_lost": 1}
    assert "0 rows wait" in tally.examples["503 queue_full"]
    assert tally.statuses == {503: 3, 502: 1}


def test_only_what_left_without_an_answer_is_unsure():
    recorder = TallyRecorder(duration_s=2)
    recorder.unanswered(departure(0.1), ended_s=0.2, reason="timeout", detail="")
    recorder.unanswered(departure(0.1, sent_s=float("inf")), ended_s=0.2, reason="connection_refused", detail="")

    assert recorded(recorder).unsure == 1


def test_no_server_can_fill_the_report_with_reasons():
    recorder = TallyRecorder(duration_s=2)
    for number in range(500):
        body = b'{"reason": "r%d"}' % number
        recorder.answered(departure(0.1), ended_s=0.2, status=500, body=body)
    failures = recorded(recorder).failures

    assert len(failures) == MOST_REASONS + 1
    assert failures["other"] == 500 - MOST_REASONS


def test_the_rate_counts_what_was_complete_while_it_was_sent():
    recorder = TallyRecorder(duration_s=2)
    for ended_s in (0.5, 1.9, 2.5):
        recorder.answered(departure(0.4), ended_s=ended_s, status=200, body=b"")

    assert recorded(recorder).ok_per_s == 1.0


def test_requests_are_in_the_slot_they_were_planned_for():
    recorder = TallyRecorder(duration_s=3)
    recorder.answered(departure(0.9), ended_s=2.8, status=200, body=b"")
    recorder.answered(departure(2.1), ended_s=2.2, status=500, body=b"")
    slots = recorded(recorder).slots

    assert [(len(slot.latency), slot.failed) for slot in slots] == [(1, 0), (0, 0), (0, 1)]


def test_tallies_of_several_processes_add_up():
    def one(seed: int) -> Tally:
        recorder = TallyRecorder(duration_s=3)
        for number in range(40):
            at_s = (number * seed) % 3
            recorder.answered(departure(at_s), ended_s=at_s + 0.01 * seed, status=200 + number % 2 * 303, body=b"x")
        return recorded(recorder, sent_for_s=3)

    whole = Tally()
    whole.add(one(1))
    whole.add(one(2))

    assert (whole.ok, whole.failed, whole.received_bytes) == (40, 40, 80)
    assert whole.statuses == {200: 40, 503: 40}
    assert sum(len(slot.latency) for slot in whole.slots) == 40
    assert whole.ok_per_s == pytest.approx(2 * one(1).ok_per_s, rel=0.1)
    assert whole.sent_for_s == 3
