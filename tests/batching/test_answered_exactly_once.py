"""Whatever happens to a request, it is answered exactly once, or never when it was cancelled before."""

import asyncio
import math
import random
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batching import virtual_time
from batching.fakes import Inbox
from redserve.batching import Answer, Batcher, BatchPolicy, Ticket
from redserve.errors import (
    DeadlineExpired,
    ModelError,
    Overloaded,
    PredictedLate,
    RunTimeout,
    ShuttingDown,
    WrongResultCount,
)

NO_TIME = (DeadlineExpired, PredictedLate)
Payload = tuple[int, str, int]  # number, what it does to its batch, rows

requests = st.tuples(
    st.sampled_from(["fine"] * 8 + ["raises", "fails alone", "loses a result", "hangs"]),
    st.integers(1, 9),  # rows; above 4 in parts
    st.sampled_from("ab"),
    st.floats(0, 0.02),  # seconds since the one before
    st.none() | st.floats(0, 0.05),  # cancelled after
    st.none() | st.floats(0, 0.05),  # the answer is due after
)
policies = st.builds(
    BatchPolicy,
    max_batch_size=st.just(4),
    max_queue_delay_s=st.sampled_from([0.0, 0.003]),
    max_queue_rows=st.sampled_from([6, 1000]),
    max_reruns=st.sampled_from([0, 3, 32]),
    slo_s=st.sampled_from([None, None, 0.012]),
)


async def engine(payloads: list[Payload]) -> list[Any]:
    """Does what its payloads say; gives back their numbers."""
    await asyncio.sleep(0.004)
    deeds = [deed for _, deed, _ in payloads]
    if "hangs" in deeds:
        await asyncio.sleep(3600)
    if "raises" in deeds:
        raise ValueError("as told")
    results = [ValueError("alone") if deed == "fails alone" else [number] for number, deed, _ in payloads]
    return results[1:] if "loses a result" in deeds else results


def split(payload: Payload, max_rows: int) -> list[tuple[Payload, int]]:
    number, deed, rows = payload
    sizes = [max_rows] * (rows // max_rows) + ([rows % max_rows] if rows % max_rows else [])
    return [((number, deed, size), size) for size in sizes]


def join(results: list[list[int]]) -> list[int]:
    return results[0] if all(result == results[0] for result in results) else [-1]


@settings(max_examples=150, deadline=None)
@given(
    arrivals=st.lists(requests, max_size=40),
    policy=policies,
    instances=st.integers(1, 3),
    grace_s=st.none() | st.floats(0, 0.02),
    service_times_s=st.sampled_from([{}, {4: 0.004}, {1: 0.0001}, {4: 1.0}]),
)
def test_every_request_is_answered_exactly_once(
    arrivals: list[Any],
    policy: BatchPolicy,
    instances: int,
    grace_s: float | None,
    service_times_s: dict[int, float],
):
    inbox = Inbox()
    refused: set[int] = set()
    cancelled: set[int] = set()
    due_s: dict[int, float] = {}

    async def main() -> None:
        loop = asyncio.get_running_loop()
        batcher: Batcher[Payload, list[int]] = Batcher(
            [engine] * instances,
            policy=policy,
            max_run_s=0.05,
            split=split,
            join=join,
            service_times_s=service_times_s,
            clock=loop.time,
        )

        def cancel(number: int, ticket: Ticket) -> None:
            if number not in inbox.answers:
                cancelled.add(number)
            ticket.cancel()

        for number, (deed, rows, group, pause_s, cancelled_after_s, budget_s) in enumerate(arrivals):
            await asyncio.sleep(pause_s)
            due_s[number] = math.inf if budget_s is None else loop.time() + budget_s
            try:
                ticket = batcher.submit(
                    (number, deed, rows), inbox.slot(number), rows=rows, group=group, deadline_s=due_s[number]
                )
            except (Overloaded, DeadlineExpired):
                refused.add(number)
                continue
            if cancelled_after_s is not None:
                loop.call_later(cancelled_after_s, cancel, number, ticket)
        await batcher.aclose(grace_s=grace_s)
        assert (batcher.queued_rows, batcher.running_rows) == (0, 0)
        await asyncio.sleep(1.0)

    virtual_time.run(main())

    answered = set(inbox.answers)
    assert answered | refused | cancelled == set(range(len(arrivals)))
    assert not answered & refused
    assert not answered & cancelled
    for number, answer in inbox.answers.items():
        deed = arrivals[number][0]
        if answer.error is None:
            assert answer.result == [number]
            assert deed == "fine"
        else:
            assert isinstance(answer.error, (ModelError, ShuttingDown, *NO_TIME))
        if isinstance(answer.error, NO_TIME):
            assert (answer.compute_s, answer.batch_rows) == (0.0, 0)
            assert due_s[number] < math.inf or policy.slo_s is not None
    has_deadlines = policy.slo_s is not None or any(deadline_s < math.inf for deadline_s in due_s.values())
    if policy.max_reruns == 32 and grace_s is None and policy.max_queue_rows == 1000 and not has_deadlines:
        blameless = {
            n
            for n in answered
            if arrivals[n][0] == "fine" and not isinstance(inbox.answers[n].error, (RunTimeout, WrongResultCount))
        }
        assert all(inbox.answers[number].error is None for number in blameless)


@pytest.fixture
def hasty_switching() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_switching")
@pytest.mark.parametrize("budget_s", [math.inf, 0.02])
async def test_under_stress_with_real_threads_everybody_is_answered_once_and_the_queue_ends_empty(budget_s: float):
    count, draw = 100_000, random.Random(2)
    answered = bytearray(count)
    cancelled = bytearray(count)
    wrong: list[int] = []
    expired = 0
    threads = set(threading.enumerate())

    def engine(payloads: list[int]) -> list[int]:
        if len(payloads) % 7 == 0:
            time.sleep(0)  # lets go of the interpreter
        if len(payloads) > 1 and payloads[0] % 1000 == 0:
            raise ValueError("only in company")
        return [payload + 1 for payload in payloads]

    def slot(number: int) -> Any:
        def answer(answer: Answer[int]) -> None:
            nonlocal expired
            answered[number] += 1
            if isinstance(answer.error, NO_TIME) or "no time to try it alone" in str(answer.error):
                expired += 1
            elif answer.error is not None or answer.result != number + 1:
                wrong.append(number)

        return answer

    policy = BatchPolicy(max_batch_size=16, max_queue_rows=4096)
    batcher: Batcher[int, int] = Batcher([engine] * 4, policy=policy)
    tickets: list[tuple[int, Ticket]] = []
    number = refused = 0
    while number < count:
        for _ in range(min(draw.randint(1, 200), count - number)):
            deadline_s = time.perf_counter() + budget_s * (1 - draw.random())
            try:
                ticket = batcher.submit(number, slot(number), group=number % 3, deadline_s=deadline_s)
                tickets.append((number, ticket))
            except (Overloaded, DeadlineExpired):
                refused += 1
                cancelled[number] = 1  # as good as: nobody may answer it
            number += 1
        for _ in range(len(tickets) // 20):
            index, ticket = tickets[draw.randrange(len(tickets))]
            if not answered[index]:
                cancelled[index] = 1
            ticket.cancel()
        del tickets[:-300]
        await asyncio.sleep(0)
    await batcher.aclose()

    assert (batcher.queued_rows, batcher.running_rows) == (0, 0)
    assert not wrong
    assert all(one + other == 1 for one, other in zip(answered, cancelled, strict=True))
    assert sum(answered) - expired > count // 4 if budget_s == math.inf else expired > 100
    for thread in set(threading.enumerate()) - threads:
        thread.join(20)
        assert not thread.is_alive()
