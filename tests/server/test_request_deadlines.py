import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.errors import BadRequest
from redserve.server.deadlines import Deadlines

DEADLINES = Deadlines(default_s=1.0, max_s=60.0)


def test_a_request_that_names_no_budget_has_the_default():
    assert DEADLINES.deadline_s(None, arrived_s=100.0) == 101.0


def test_a_budget_counts_from_the_arrival():
    assert DEADLINES.deadline_s(b"250", arrived_s=100.0) == 100.25
    assert DEADLINES.deadline_s(b"0.5", arrived_s=100.0) == 100.0005


def test_no_budget_exceeds_the_cap_of_the_server():
    assert DEADLINES.deadline_s(b"999999999", arrived_s=100.0) == 160.0
    assert Deadlines(default_s=90.0, max_s=60.0).deadline_s(None, arrived_s=100.0) == 160.0


def test_the_body_may_name_the_budget_and_the_earlier_one_counts():
    assert DEADLINES.deadline_s(None, arrived_s=100.0, timeout_s=0.25) == 100.25
    assert DEADLINES.deadline_s(None, arrived_s=100.0, timeout_s=5.0) == 105.0
    assert DEADLINES.deadline_s(None, arrived_s=100.0, timeout_s=1e9) == 160.0
    assert DEADLINES.deadline_s(b"500", arrived_s=100.0, timeout_s=0.25) == 100.25
    assert DEADLINES.deadline_s(b"250", arrived_s=100.0, timeout_s=0.5) == 100.25


@pytest.mark.parametrize(
    "budget_ms",
    [
        *(b"", b" ", b"0", b"0.0", b"000", b"-1", b"+5", b"soon", b"nan", b"inf", b"1e3", b".5", b"5.", b"5.5.5"),
        *(b"1_000", b"1 2", b"250, 250", b"0x10", b"\xb2", b"5\n", b"\xa05", b"0." + b"0" * 5_000),
    ],
    ids=lambda budget_ms: ascii(budget_ms[:10]),
)
def test_a_budget_that_is_no_positive_number_is_a_bad_request(budget_ms):
    with pytest.raises(BadRequest, match="X-Request-Timeout-Ms"):
        DEADLINES.deadline_s(budget_ms, arrived_s=100.0)


def test_spaces_and_tabs_around_a_budget_are_not_part_of_it():
    assert DEADLINES.deadline_s(b"\t 250 \t", arrived_s=100.0) == 100.25


@pytest.mark.parametrize("budget_ms", [b"9" * 15, b"9" * 16, b"9" * 5_000, b"60000.0000000000001"])
def test_a_budget_of_many_digits_is_capped_as_any_long_one(budget_ms):
    assert DEADLINES.deadline_s(budget_ms, arrived_s=100.0) == 160.0


@pytest.mark.parametrize("budget_ms", [b"0.0000000001", b"0." + b"0" * 5_000 + b"1", b"0" * 5_000 + b".001"])
def test_a_tiny_budget_is_a_budget(budget_ms):
    assert 100.0 <= DEADLINES.deadline_s(budget_ms, arrived_s=100.0) <= 100.000001


@given(st.text("0123456789. \t", max_size=24).map(str.encode) | st.binary(max_size=12))
def test_whatever_is_sent_the_deadline_is_its_number_from_the_arrival_up_to_the_cap_or_it_is_a_bad_request(budget_ms):
    try:
        deadline_s = DEADLINES.deadline_s(budget_ms, arrived_s=100.0)
    except BadRequest:
        return
    assert deadline_s == 100.0 + min(float(budget_ms) / 1000, 60.0)
