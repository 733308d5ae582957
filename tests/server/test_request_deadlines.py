import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.errors import BadRequest
from redserve.server.deadlines import Deadlines

DEADLINES = Deadlines(default_s=1.0, max_s=60.0)


def test_a_request_that_names_no_budget_has_the_default():
    assert DEADLINES.deadline_s(b"", arrived_s=100.0) == 101.0


def test_a_budget_counts_from_the_arrival():
    assert DEADLINES.deadline_s(b"250", arrived_s=100.0) == 100.25
    assert DEADLINES.deadline_s(b"0.5", arrived_s=100.0) == 100.0005


def test_no_budget_exceeds_the_cap_of_the_server():
    assert DEADLINES.deadline_s(b"999999999", arrived_s=100.0) == 160.0
    assert Deadlines(default_s=90.0, max_s=60.0).deadline_s(b"", arrived_s=100.0) == 160.0


def test_the_body_may_name_the_budget_and_the_earlier_one_counts():
    assert DEADLINES.deadline_s(b"", arrived_s=100.0, timeout_s=0.25) == 100.25
    assert DEADLINES.deadline_s(b"", arrived_s=100.0, timeout_s=5.0) == 105.0
    assert DEADLINES.deadline_s(b"", arrived_s=100.0, timeout_s=1e9) == 160.0
    assert DEADLINES.deadline_s(b"500", arrived_s=100.0, timeout_s=0.25) == 100.25
    assert DEADLINES.deadline_s(b"250", arrived_s=100.0, timeout_s=0.5) == 100.25


@pytest.mark.parametrize(
    "budget_ms",
    [b"0", b"0.0", b"-1", b"soon", b"nan", b"inf", b"1e3", b"1_000", b" ", b"1 2", b"0x10", b"\xb2", b"9" * 5_000],
    ids=lambda budget_ms: ascii(budget_ms[:10]),
)
def test_a_budget_that_is_no_positive_number_is_a_bad_request(budget_ms):
    with pytest.raises(BadRequest, match="X-Request-Timeout-Ms"):
        DEADLINES.deadline_s(budget_ms, arrived_s=100.0)


@given(st.binary(max_size=12))
def test_whatever_is_sent_the_deadline_lies_between_arrival_and_cap_or_it_is_a_bad_request(budget_ms):
    try:
        deadline_s = DEADLINES.deadline_s(budget_ms, arrived_s=100.0)
    except BadRequest:
        return
    assert 100.0 < deadline_s <= 160.0 or (deadline_s == 100.0 and float(budget_ms) < 1e-6)
