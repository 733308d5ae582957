"""What becomes of a batch that fails: run again in parts, unless others would pay for it. In virtual time."""

import asyncio
from typing import Any

import pytest

from batching.fakes import RecordingObserver
from batching.virtual_time import run
from redserve.batching import Batcher, BatchPolicy
from redserve.errors import BadRequest, ModelError


class PoisonError(Exception):
    pass


class Engine:
    """Takes 10 ms, and fails where "bad" is among what it is given."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[list[str]] = []
        self._error = error or PoisonError("it is bad")

    async def __call__(self, payloads: list[str]) -> list[str]:
        self.calls.append(payloads)
        await asyncio.sleep(0.010)
        if "bad" in payloads:
            raise self._error
        return payloads


def serve(
    engine: Engine, first: list[str], then: list[str], *, budget_s: float = 1e9, **numbers: Any
) -> tuple[list[Any], list[Any], RecordingObserver]:
    """Results of the first four, and of those that come while they run; and what the observer was told."""
    observer = RecordingObserver()

    async def main() -> tuple[list[Any], list[Any]]:
        loop = asyncio.get_running_loop()
        policy = BatchPolicy(**{"max_batch_size": 4, **numbers})
        async with Batcher(
            engine, policy=policy, observer=observer, service_times_s={1: 0.010, 4: 0.010}, clock=loop.time
        ) as batcher:
            running = asyncio.gather(*map(batcher, first), return_exceptions=True)
            await asyncio.sleep(0.001)
            due_s = loop.time() + budget_s
            waiting = asyncio.gather(*(batcher(one, deadline_s=due_s) for one in then), return_exceptions=True)
            return await running, await waiting

    return *run(main()), observer


def test_with_time_to_spare_only_the_one_at_fault_fails():
    engine = Engine()

    results, waiting, observer = serve(engine, ["a", "b", "bad", "c"], ["d"])

    assert [results[0], results[1], results[3], *waiting] == ["a", "b", "c", "d"]
    assert str(results[2]) == "PoisonError: it is bad"
    assert [report.why for report in observer.reports] == ["full", "split", "split", "split", "idle"]


def test_while_more_than_half_of_what_may_wait_does_a_failed_batch_is_not_run_again():
    engine = Engine()

    results, waiting, observer = serve(engine, ["a", "b", "bad", "c"], ["d", "e", "f"], max_queue_rows=4)

    assert waiting == ["d", "e", "f"]
    assert {type(result) for result in results} == {ModelError}
    assert {str(result) for result in results} == {
        "failed among 4 requests, and there was no time to try it alone: PoisonError: it is bad"
    }
    assert all(isinstance(result.__cause__, PoisonError) for result in results)
    assert len({id(result) for result in results}) == 4
    assert engine.calls == [["a", "b", "bad", "c"], ["d", "e", "f"]]
    assert [report.has_failed for report in observer.reports] == [True, False]


@pytest.mark.parametrize(("budget_s", "reruns"), [(0.021, 0), (0.031, 1), (0.041, 2), (0.051, 3), (0.061, 4)])
def test_parts_are_run_again_as_long_as_nobody_who_waits_is_late_for_it(budget_s: float, reruns: int):
    engine = Engine()

    results, waiting, observer = serve(engine, ["bad", "b", "c", "d"], ["e"], budget_s=budget_s)

    assert waiting == ["e"]
    assert [report.why for report in observer.reports].count("split") == reruns
    assert [isinstance(result, ModelError) for result in results].count(True) == [4, 4, 2, 2, 1][reruns]


def test_who_was_tried_alone_has_its_own_error_even_where_the_time_ran_out_for_others():
    results, _, _ = serve(Engine(), ["bad", "b", "bad", "c"], ["e"], budget_s=0.061)

    told = [str(result) for result in results]
    assert told[0] == "PoisonError: it is bad"
    assert told[1] == "b"
    assert told[2].startswith("failed among 2 requests")
    assert told[3].startswith("failed among 2 requests")


def test_nobody_is_told_that_it_was_wrong_who_may_not_have_been():
    results, _, _ = serve(Engine(BadRequest("NaN")), ["bad", "b", "c", "d"], [], max_reruns=0)

    assert {type(result) for result in results} == {ModelError}
    assert all(isinstance(result.__cause__, BadRequest) for result in results)
