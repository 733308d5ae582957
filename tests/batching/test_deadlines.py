"""The real Batcher in virtual time: who is answered by when, and who is told that it will not be."""

import asyncio
import math
import time
from collections.abc import Mapping
from typing import Any

import pytest

from batching.fakes import Inbox, PuppetEngine, RecordingObserver
from batching.virtual_time import run
from redserve.batching import Answer, Batcher, BatchPolicy
from redserve.errors import DeadlineExpired, Overloaded, PredictedLate

Arrival = tuple[float, str, float, dict[str, Any]]  # when, key, budget, other arguments of `submit`


async def echo_10_ms(payloads: list[Any]) -> list[Any]:
    await asyncio.sleep(0.010)
    return payloads


def split(payload: str, max_rows: int) -> list[tuple[str, int]]:
    return [(payload[start : start + max_rows], len(payload[start : start + max_rows])) for start in range(0, 4, 2)]


def serve(
    arrivals: list[Arrival],
    engine: Any = echo_10_ms,
    service_times_s: Mapping[int, float] = {},
    **policy: Any,
) -> tuple[dict[str, Answer[Any]], dict[str, float]]:
    """The answers, and when they came."""
    inbox, answered_s = Inbox(), {}

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with Batcher(
            engine,
            policy=BatchPolicy(**{"max_batch_size": 2, **policy}),
            split=split,
            join="".join,
            max_run_s=None,
            service_times_s=service_times_s,
            clock=loop.time,
        ) as batcher:
            for when_s, key, budget_s, rest in arrivals:
                await asyncio.sleep(when_s - loop.time())

                def answer(answer: Answer[Any], key: str = key) -> None:
                    answered_s[key] = round(loop.time(), 6)
                    inbox.slot(key)(answer)

                try:
                    batcher.submit(key, answer, deadline_s=when_s + budget_s, **rest)
                except Overloaded:
                    answered_s[key] = when_s

    run(main())
    return inbox.answers, answered_s


def test_a_deadline_that_passes_in_the_queue_is_answered_then_and_never_run():
    ran: list[str] = []

    async def engine(payloads: list[str]) -> list[str]:
        ran.extend(payloads)
        return await echo_10_ms(payloads)

    answers, answered_s = serve([(0.0, "a", math.inf, {}), (0.001, "b", 0.005, {})], engine)

    assert isinstance(answers["b"].error, DeadlineExpired)
    assert answered_s == {"a": 0.010, "b": 0.006}
    assert (answers["b"].queue_s, answers["b"].compute_s, answers["b"].batch_rows) == (pytest.approx(0.005), 0.0, 0)
    assert ran == ["a"]


def test_what_runs_is_never_abandoned_and_its_late_answer_is_an_answer():
    answers, answered_s = serve([(0.0, "late", 0.001, {})])

    assert answers["late"].result == "late"
    assert answered_s == {"late": 0.010}


def test_who_is_due_first_goes_first_and_ties_go_by_arrival():
    arrivals: list[Arrival] = [(0.0, "running", math.inf, {})]
    arrivals += [(0.001, "b1", 0.200, {}), (0.001, "b2", 0.200, {}), (0.001, "c", 0.300, {}), (0.002, "a", 0.100, {})]

    _, answered_s = serve(arrivals)

    assert answered_s == {"running": 0.010, "a": 0.020, "b1": 0.020, "b2": 0.030, "c": 0.030}


def test_the_group_whose_head_is_due_first_goes_first():
    arrivals: list[Arrival] = [(0.0, "running", math.inf, {})]
    arrivals += [(0.001, "x", 0.3, {"group": 1}), (0.001, "y", 0.2, {"group": 2}), (0.001, "z", 0.1, {"group": 1})]

    _, answered_s = serve(arrivals)

    assert answered_s == {"running": 0.010, "x": 0.020, "z": 0.020, "y": 0.030}


def test_no_stream_of_deadlines_keeps_one_without_waiting_for_more_than_a_second():
    arrivals: list[Arrival] = [(0.0, "running", math.inf, {}), (0.0, "patient", math.inf, {})]
    arrivals += [(0.005 * n, f"{n}", 0.050, {}) for n in range(1, 300)]

    answers, answered_s = serve(arrivals, max_batch_size=1)

    assert answers["patient"].error is None
    assert 0.9 < answered_s["patient"] < 1.1
    assert len(answered_s) == 301
    assert sum(answer.error is None for answer in answers.values()) < 160


def test_a_policy_gives_a_deadline_to_those_that_bring_none():
    arrivals: list[Arrival] = [(0.0, "running", math.inf, {}), (0.001, "b", math.inf, {}), (0.002, "c", 1.0, {})]

    answers, answered_s = serve(arrivals, slo_s=0.004)

    assert isinstance(answers["b"].error, DeadlineExpired)
    assert answered_s == {"running": 0.010, "b": 0.005, "c": 0.020}


@pytest.mark.parametrize("budget_s", [0.0, -1.0, math.nan])
def test_a_deadline_that_has_passed_is_refused_at_the_door(budget_s: float):
    with pytest.raises(DeadlineExpired):
        serve([(0.0, "a", budget_s, {})])


def test_a_request_larger_than_a_batch_expires_as_a_whole():
    whole: Arrival = (0.001, "long", 0.015, {"rows": 4})

    answers, answered_s = serve([(0.0, "running", math.inf, {}), whole])

    assert isinstance(answers["long"].error, DeadlineExpired)
    assert answered_s == {"running": 0.010, "long": 0.016}


def test_those_who_have_expired_free_their_place():
    arrivals: list[Arrival] = [(0.0, "running", math.inf, {}), (0.001, "a", 0.002, {}), (0.004, "b", 0.050, {})]

    answers, _ = serve(arrivals, max_queue_rows=1)

    assert answers["b"].error is None


def test_who_makes_room_for_others_is_told_at_once_how_late_it_would_have_been():
    async def engine(payloads: list[str]) -> list[str]:
        await asyncio.sleep(0.030 if payloads == ["slow"] else 0.010)
        return payloads

    arrivals: list[Arrival] = [(0.0, "slow", math.inf, {}), (0.001, "a", 0.025, {}), (0.018, "b", 0.025, {})]

    answers, answered_s = serve(arrivals, engine, service_times_s={1: 0.010}, max_batch_size=1)

    error = answers["a"].error  # as the running one has taken 8 ms too long, 8 more are expected, and then its own 10
    assert isinstance(error, PredictedLate)
    assert (error.status, round(error.late_s, 6), error.retry_after_s) == (503, 0.010, error.late_s)
    assert (round(answers["a"].queue_s, 6), answers["a"].batch_rows) == (0.017, 0)
    assert answered_s == {"a": 0.018, "slow": 0.030, "b": 0.040}


async def test_a_hanging_function_delays_nobodys_expiry():
    engine, inbox = PuppetEngine(), Inbox()
    async with Batcher(engine, observer=RecordingObserver()) as batcher:
        batcher.submit("hangs", inbox.slot("hangs"))
        await engine.entered()
        now_s = time.perf_counter()
        batcher.submit("waits", inbox.slot("waits"), deadline_s=now_s + 0.01)
        answers = await inbox.wait(1)

        assert isinstance(answers["waits"].error, DeadlineExpired)
        assert batcher.queued_rows == 0
        engine.end(0)

    assert engine.calls == [["hangs"]]


def test_a_drain_ends_though_all_that_was_left_has_expired():
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        batcher = Batcher(echo_10_ms, policy=BatchPolicy(max_batch_size=1), clock=loop.time)
        running = asyncio.create_task(batcher("running"))
        await asyncio.sleep(0.0093)
        late = asyncio.create_task(batcher("late", deadline_s=0.0095))  # before any timer, after the batch was taken
        await asyncio.sleep(0)
        await batcher.aclose()
        return await asyncio.gather(running, late, return_exceptions=True)

    running, late = run(main())

    assert running == "running"
    assert isinstance(late, DeadlineExpired)
