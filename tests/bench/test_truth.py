from collections import Counter

import pytest

from redserve.bench.metrics_page import Scrape
from redserve.bench.tally import Tally
from redserve.bench.truth import mismatch


def tally(statuses: dict[int, int], *, unsure: int = 0, failures: dict[str, int] | None = None) -> Tally:
    return Tally(statuses=Counter(statuses), unsure=unsure, failures=Counter(failures or {}))


@pytest.mark.parametrize(
    ("server", "client"),
    [
        ({"200": 5}, tally({200: 5})),
        ({"200": 5, "503": 2}, tally({200: 5, 503: 2})),
        ({"200": 5, "499": 2}, tally({200: 5}, unsure=2)),
        ({"200": 6, "499": 1}, tally({200: 5}, unsure=3)),  # one was answered too late for the sender
        ({"200": 5}, tally({200: 5}, unsure=4)),  # they never reached the server
        ({"200": 5}, tally({200: 5, 503: 3}, failures={"503 too_many_connections": 3})),  # refused uncounted
    ],
)
def test_counts_that_can_both_be_right_are_no_mismatch(server, client):
    assert mismatch(Scrape(server), client) == ""


@pytest.mark.parametrize(
    ("server", "client", "says"),
    [
        ({"200": 4}, tally({200: 5}), "1 x 200 fewer"),
        ({}, tally({200: 5}), "5 x 200 fewer"),
        ({"200": 6}, tally({200: 5}), "1 x 200 more"),
        ({"200": 5, "499": 2}, tally({200: 5}, unsure=1), "2 x 499 more"),
        ({"500": 5}, tally({200: 5}), "5 x 200 fewer"),
        ({"200": 4, "503": 1}, tally({200: 5}, unsure=9), "1 x 200 fewer"),
    ],
)
def test_counts_that_cannot_both_be_right_are_said_in_numbers(server, client, says):
    assert says in mismatch(Scrape(server), client)
