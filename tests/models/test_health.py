import math

from hypothesis import given
from hypothesis import strategies as st

from redserve.models.health import FAILED_RUNS, FIRST_PAUSE_S, LONGEST_PAUSE_S, Health


def failing(health: Health, runs: int, *, now_s: float = 0.0, is_rerun: bool = False) -> None:
    for _ in range(runs):
        health.run_ended(has_failed=True, is_rerun=is_rerun, now_s=now_s)


def succeed(health: Health, *, now_s: float = 0.0, is_rerun: bool = False) -> None:
    health.run_ended(has_failed=False, is_rerun=is_rerun, now_s=now_s)


def fail_a_probe(health: Health, *, error: str = "broken") -> None:
    now_s = health.due_s
    assert health.check(is_stalled=False, now_s=now_s)
    failing(health, 1, now_s=now_s)
    health.probe_ended(error=error, now_s=now_s)


def unhealthy() -> Health:
    health = Health(can_probe=True)
    failing(health, 3)
    fail_a_probe(health)
    assert health.reason
    return health


def test_three_failed_runs_in_a_row_ask_for_a_probe_and_say_nothing_yet():
    health = Health(can_probe=True)
    failing(health, 2, now_s=1.0)
    assert health.due_s == math.inf

    failing(health, 1, now_s=2.0)

    assert health.due_s == 2.0
    assert health.check(is_stalled=False, now_s=2.0)
    assert health.reason == ""


def test_a_success_in_between_begins_the_count_again():
    health = Health(can_probe=True)
    failing(health, 2)
    succeed(health)
    failing(health, 2)

    assert health.due_s == math.inf


def test_a_part_of_a_failed_batch_is_no_further_failure():
    health = Health(can_probe=True)
    failing(health, 1)
    failing(health, 30, is_rerun=True)

    assert health.due_s == math.inf


def test_a_part_of_a_failed_batch_that_runs_well_is_a_success():
    health = Health(can_probe=True)
    failing(health, 2)
    succeed(health, is_rerun=True)
    failing(health, 2)

    assert health.due_s == math.inf


def test_a_probe_that_fails_too_makes_it_unhealthy_and_is_repeated_ever_more_slowly():
    health = Health(can_probe=True)
    failing(health, 3)

    pauses_s = []
    for _ in range(6):
        failed_s = health.due_s
        fail_a_probe(health, error="out of memory")
        pauses_s.append(health.due_s - failed_s)

    assert pauses_s == [1, 2, 4, 8, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert health.reason == "the last 9 runs failed, a probe among them: out of memory"


def test_a_probe_that_runs_well_shows_that_the_requests_were_at_fault():
    health = Health(can_probe=True)
    failing(health, 3)
    health.check(is_stalled=False, now_s=0.0)
    succeed(health)
    health.probe_ended(error=None, now_s=0.0)

    assert health.reason == ""
    assert health.due_s == math.inf


def test_requests_that_make_it_fail_cost_a_probe_a_second_at_most():
    health = Health(can_probe=True)
    probes = 0
    for step in range(1_000):
        now_s = step / 100
        failing(health, 1, now_s=now_s)
        if health.due_s <= now_s:
            assert health.check(is_stalled=False, now_s=now_s)
            probes += 1
            succeed(health, now_s=now_s)
            health.probe_ended(error=None, now_s=now_s)
        assert health.reason == ""

    assert 9 <= probes <= 11


def test_any_run_that_succeeds_is_the_cure():
    health = unhealthy()
    succeed(health)

    assert health.reason == ""
    assert health.due_s == math.inf
    failing(health, 3, now_s=100.0)
    fail_a_probe(health)
    assert health.due_s == 100.0 + FIRST_PAUSE_S  # and the pauses begin anew


def test_a_run_that_succeeds_while_a_probe_fails_counts_for_more():
    health = Health(can_probe=True)
    failing(health, 3)
    health.check(is_stalled=False, now_s=0.0)
    succeed(health)
    failing(health, 1)
    health.probe_ended(error="broken", now_s=0.0)

    assert health.reason == ""
    assert health.due_s == math.inf


def test_a_probe_that_found_no_room_is_tried_again_and_proves_nothing():
    health = Health(can_probe=True)
    failing(health, 3)
    health.check(is_stalled=False, now_s=5.0)
    health.probe_ended(error=None, now_s=5.0)

    assert health.reason == ""
    assert health.due_s == 5.0 + FIRST_PAUSE_S


def test_one_probe_runs_at_a_time():
    health = Health(can_probe=True)
    failing(health, 3)
    health.check(is_stalled=False, now_s=0.0)
    failing(health, 100, now_s=50.0)

    assert health.due_s == math.inf


def test_it_is_unhealthy_at_once_when_every_instance_hangs():
    health = Health(can_probe=True)
    health.stalled(now_s=7.0)

    assert "hangs" in health.reason
    assert health.due_s == 8.0


def test_while_every_instance_hangs_it_is_looked_after_each_second_and_nothing_is_run():
    health = Health(can_probe=True)
    health.stalled(now_s=0.0)
    for second in range(1, 60):
        assert health.due_s == second
        assert not health.check(is_stalled=True, now_s=second)

    assert health.check(is_stalled=False, now_s=60.0)
    assert health.reason
    succeed(health, now_s=60.0)
    health.probe_ended(error=None, now_s=60.0)
    assert health.reason == ""


def test_what_comes_back_and_still_fails_stays_unhealthy():
    health = Health(can_probe=True)
    failing(health, 1)
    health.stalled(now_s=0.0)
    fail_a_probe(health, error="still broken")

    assert health.reason == "the last 2 runs failed, a probe among them: still broken"
    assert health.due_s == 2.0


def test_a_probe_that_hangs_like_all_others_does_not_hide_why():
    health = Health(can_probe=True)
    failing(health, 3)
    health.check(is_stalled=False, now_s=0.0)
    health.stalled(now_s=60.0)
    health.probe_ended(error="the batch ran longer than 60 s", now_s=60.0)

    assert "hangs" in health.reason
    assert health.due_s == 61.0


def test_where_nothing_is_known_to_run_three_failed_runs_have_to_do():
    health = Health(can_probe=False)
    failing(health, 2)
    assert health.reason == ""

    failing(health, 1)

    assert health.reason == "the last 3 runs failed"
    succeed(health)
    assert health.reason == ""


def test_where_nothing_is_known_to_run_it_is_soon_on_trial_and_one_more_failure_is_enough():
    health = Health(can_probe=False)
    failing(health, 3, now_s=0.0)
    pauses_s = []
    for _ in range(6):
        tried_s = health.due_s
        assert not health.check(is_stalled=False, now_s=tried_s)
        assert health.reason == ""
        assert health.due_s == math.inf
        failing(health, 1, now_s=tried_s)
        assert health.reason
        pauses_s.append(health.due_s - tried_s)

    assert pauses_s == [2, 4, 8, 10, 10, 10]


@given(
    can_probe=st.booleans(),
    events=st.lists(st.sampled_from(["fail", "part fails", "stall", "check", "probe fails", "no room"]), max_size=60),
)
def test_after_any_history_it_is_looked_after_again_and_a_success_makes_it_healthy(can_probe, events):
    health = Health(can_probe=can_probe)
    now_s, is_probing = 0.0, False
    for event in events:
        if event == "stall":
            health.stalled(now_s=now_s)
        elif event == "check" and health.due_s != math.inf and not is_probing:
            now_s = max(now_s, health.due_s)
            is_probing = health.check(is_stalled=False, now_s=now_s)
        elif event in ("probe fails", "no room") and is_probing:
            is_probing = False
            health.probe_ended(error="broken" if event == "probe fails" else None, now_s=now_s)
        else:
            failing(health, 1, now_s=now_s, is_rerun=event == "part fails")
        if health.reason:
            assert is_probing or now_s <= health.due_s <= now_s + LONGEST_PAUSE_S

    succeed(health, now_s=now_s)
    if is_probing:
        health.probe_ended(error=None, now_s=now_s)

    assert health.reason == ""
    assert health.due_s == math.inf
    failing(health, FAILED_RUNS - 1, now_s=now_s)
    assert health.due_s == math.inf
