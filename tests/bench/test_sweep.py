import pytest

from redserve.bench.sweep import SweepPlan, per_s


def search(capacity_per_s: float, *, first_per_s: float = 100.0) -> tuple[SweepPlan, list[float]]:
    plan, tried = SweepPlan(first_per_s), []
    while (rate := plan.next_rate_per_s()) is not None:
        tried.append(rate)
        plan.tell(is_within_slo=rate <= capacity_per_s)
    return plan, tried


@pytest.mark.parametrize("capacity_per_s", [3.0, 99.0, 100.0, 1_234.0, 40_000.0])
def test_the_knee_is_found_to_five_percent_from_below(capacity_per_s):
    plan, tried = search(capacity_per_s)

    assert plan.knee_per_s is not None
    assert capacity_per_s / 1.05 <= plan.knee_per_s <= capacity_per_s
    assert len(tried) < 30


def test_the_rate_is_doubled_until_it_breaks_and_then_the_gap_is_halved():
    _, tried = search(450.0)

    assert tried[:5] == [100, 200, 400, 800, 800]
    assert tried[5] == pytest.approx((400 * 800) ** 0.5)


def test_one_bad_second_is_not_the_result():
    plan = SweepPlan(100)
    plan.tell(is_within_slo=False)
    assert plan.next_rate_per_s() == 100
    plan.tell(is_within_slo=True)

    assert plan.knee_per_s == 100
    assert plan.next_rate_per_s() == 200


def test_a_server_that_keeps_the_slo_at_no_rate_has_no_knee():
    plan, _ = search(0.0)

    assert plan.knee_per_s is None
    assert "not kept at any rate" in plan.ended_because


def test_it_says_when_the_sender_may_have_been_the_limit():
    plan = SweepPlan(100)
    while (rate := plan.next_rate_per_s()) is not None:
        plan.tell(is_within_slo=rate <= 300, kept_rate=rate <= 250)

    assert "the sender itself could not keep the rate" in plan.ended_because


def test_it_ends_however_the_server_behaves():
    plan, tried = search(float("inf"))

    assert len(tried) == 40
    assert "40 runs" in plan.ended_because


def test_rates_are_told_in_digits_that_can_be_typed():
    assert [per_s(rate) for rate in (0.5, 141.42, 11_236.4)] == ["0.5/s", "141.4/s", "11,236/s"]
