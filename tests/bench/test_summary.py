from dataclasses import replace

from results import result_of, run_of, swept, tally_of

from redserve.bench.histogram import Histogram
from redserve.bench.run_table import ms
from redserve.bench.summary import summarise


def test_the_loop_is_named_and_what_its_latencies_mean():
    assert "closed loop, 64 connections" in summarise(result_of(run_of()))
    opened = summarise(result_of(run_of(rate_per_s=100)))
    assert "open loop, constant at 100/s (latency counts from the planned time)" in opened
    assert "own delay" in opened


def test_the_servers_numbers_stand_beside_the_senders_with_the_difference():
    text = summarise(result_of(run_of()))

    assert "the server counted the same 900 requests" in text
    assert "5.5 rows on average" in text
    assert "+1." in text.partition("apart")[2].splitlines()[0]


def test_a_mismatch_cannot_be_overlooked():
    assert "MISMATCH   the server counted 3 x 200 more" in summarise(
        result_of(run_of(mismatch="the server counted 3 x 200 more"))
    )


def test_failures_come_with_their_reason_and_one_body():
    text = summarise(result_of(run_of(tally_of(failed=90))))

    assert "90 x 503 queue_full:" in text
    assert "1024 rows already wait" in text


def test_why_there_is_no_truth_check_is_said():
    assert "no metrics of redserve (404): no truth check" in summarise(result_of(run_of(server=False)))


def test_several_runs_are_a_line_each_with_their_failures_together():
    text = summarise(result_of(run_of(tally_of(failed=90)), run_of(tally_of(failed=9), at=30), loop="closed"))

    assert [line.split()[0] for line in text.splitlines() if line.rstrip().endswith("5.5")] == ["1", "2"]
    assert "99 x 503 queue_full" in text


def test_a_mismatch_of_one_run_of_several_cannot_be_overlooked():
    assert "MISMATCH   run 2: 3 x 200 more" in summarise(result_of(run_of(), run_of(at=9, mismatch="3 x 200 more")))


def test_each_run_of_several_says_that_it_was_stopped_and_that_requests_waited_for_a_connection():
    tally = tally_of()
    tally.connection_wait = Histogram.of({20_000: 900})
    waited, stopped = (
        run_of(tally, rate_per_s=100),
        replace(run_of(at=9, rate_per_s=100), stopped_because="interrupted"),
    )
    text = " ".join(summarise(result_of(waited, stopped)).split())

    assert "waited for a free connection, which the latencies count (--max-connections): run 1 note" in text
    assert "run 2: stopped after 9.0 s: interrupted" in text


def test_closed_loops_of_several_say_where_the_sender_was_busy():
    tally = tally_of()
    tally.own_delay = Histogram.of({3000: 900})
    text = " ".join(summarise(result_of(run_of(), run_of(tally, at=9))).split())

    assert "the rate may be its own limit: run 2" in text


def test_a_sweep_shows_its_rates_in_order_and_the_knee():
    text = summarise(swept())

    assert "knee       400/s: the highest rate at which 99 % of all requests are answered within 50.0 ms" in text
    assert "the SLO breaks at 800/s" in " ".join(text.split())
    assert [line.split()[0] for line in text.splitlines() if line.endswith(("ok", "broken"))] == [
        "100/s",
        "200/s",
        "400/s",
        "800/s",
    ]


def test_lines_fit_a_terminal():
    long_note = run_of(notes=("a sentence of many words " * 20,))

    assert max(len(line) for line in summarise(result_of(long_note)).splitlines()) <= 120


def test_times_have_three_digits():
    assert [ms(value) for value in (0.0000456, 0.00123, 0.0456, 1.5)] == ["0.046 ms", "1.23 ms", "45.6 ms", "1,500 ms"]
