"""What clients saw is what is counted, to the last request: mixed outcomes over HTTP (`accounting_plan.py`)."""

import asyncio
from random import Random

import pytest
from accounting_plan import AT_ONCE, LEAVING, PLAN, QUEUE_ROWS, QUEUED, assert_counts_agree, scraped
from hypothesis import Phase, given, settings
from puppet_server import PuppetServer, ask, tally


@pytest.fixture(scope="module")
def server():
    with PuppetServer(max_batch_size=4, max_queue_rows=QUEUE_ROWS, max_body_mib=1) as server:
        yield server


@given(**PLAN)
@settings(max_examples=25, derandomize=True, phases=[Phase.generate])  # shrinking would wait in vain, again and again
def test_client_side_counts_equal_the_counters(server, **plan):
    assert_counts_agree(server, **plan)


def test_client_side_counts_equal_the_counters_when_everything_happens(server):
    seen = assert_counts_agree(
        server,
        at_once=[*AT_ONCE, *AT_ONCE],
        queued=[*QUEUED, *QUEUED],
        leaving=[*LEAVING, *LEAVING],
        late=3,
        turned_away=3,
        is_next_begun=True,
    )

    ends = "bad_request unknown_model not_found method_not_allowed unsupported_media_type too_large headers_too_large "
    ends += "deadline_expired predicted_late queue_full client_disconnected model_error"
    assert set(seen) == set(ends.split())


def test_client_side_counts_equal_the_counters_of_2000_requests_that_nothing_holds_up(server):
    kinds = {**AT_ONCE, **QUEUED}
    before = server.counts()

    async def client(number):
        random = Random(number)
        return [await ask(server.port, kinds[random.choice(sorted(kinds))]) for _ in range(125)]

    async def everybody():
        async with scraped(server.url):
            return await asyncio.gather(*map(client, range(16)))

    answers = [answer for answers in asyncio.run(everybody()) for answer in answers]

    assert len(answers) == 2_000
    assert server.counts() - before == tally(answers)
    assert server.in_flight == server.queued_rows == 0
