"""Batches of a thread that computes on the loop's own cores start when the loop is quiet."""

import asyncio
import math
from typing import Any

from batching.fakes import FakeClock, Inbox, PuppetEngine, RecordingObserver, turns
from redserve.batching import Batcher
from redserve.batching.patience import UntilQuiet
from redserve.batching.turns import Turns


def results_of(inbox: Inbox) -> dict[Any, Any]:
    return {key: answer.result for key, answer in inbox.answers.items()}


async def test_a_batch_starts_with_all_who_came_before_the_first_turn_that_brought_nobody():
    engine, inbox = PuppetEngine(), Inbox()
    async with Batcher(engine, until_quiet=True) as batcher:
        for key in (1, 2, 3, 4):
            batcher.submit(key, inbox.slot(key))
            await turns(1)
        await engine.entered()
        engine.end(0)

    assert engine.calls == [[1, 2, 3, 4]]
    assert results_of(inbox) == {1: 1, 2: 2, 3: 3, 4: 4}


async def flushed_in_turn(*, until_quiet: bool, turn_s: float = 0.0, full_from: float = math.inf) -> int:
    """In which turn of a loop the flush comes, where each of ten turns that take `turn_s` brings somebody."""
    clock, turn, flushes = FakeClock(), 0, list[int]()
    quiet = UntilQuiet(lambda: turn < full_from, clock=clock)
    loop = asyncio.get_running_loop()
    flushing = Turns(loop, lambda: flushes.append(turn), patience=quiet if until_quiet else None)
    while not flushes:
        if turn < 10:
            flushing.arm()
        turn += 1
        clock.now_s += turn_s
        await turns(1)
    return flushes[0]


async def test_the_flush_comes_in_the_next_turn():
    assert await flushed_in_turn(until_quiet=False) == 1


async def test_until_quiet_it_comes_in_the_first_turn_that_brought_nobody():
    assert await flushed_in_turn(until_quiet=True) == 11


async def test_until_quiet_it_comes_as_soon_as_a_batch_is_full():
    assert await flushed_in_turn(until_quiet=True, full_from=3) == 3


async def test_until_quiet_it_comes_after_five_milliseconds_in_any_case():
    assert await flushed_in_turn(until_quiet=True, turn_s=0.001) == 5


async def test_those_just_answered_join_those_who_wait():
    engine, inbox, observer = PuppetEngine(), Inbox(), RecordingObserver()
    async with Batcher(engine, until_quiet=True, observer=observer) as batcher:

        def come_back(key: str) -> None:
            batcher.submit(f"{key} again", inbox.slot(f"{key} again"))

        for key in ("a", "b"):
            batcher.submit(key, lambda answer, key=key: come_back(key))
        await engine.entered()
        for key in ("c", "d"):
            batcher.submit(key, inbox.slot(key))
        await turns(3)
        engine.end(0)
        await engine.entered()
        engine.end(1)

    assert engine.calls == [["a", "b"], ["c", "d", "a again", "b again"]]
    assert [report.why for report in observer.reports] == ["idle", "linger"]


async def test_who_waits_behind_a_run_is_run_though_nobody_comes_any_more():
    engine, inbox = PuppetEngine(), Inbox()
    async with Batcher(engine, until_quiet=True) as batcher:
        batcher.submit(1, inbox.slot(1))
        await engine.entered()
        batcher.submit(2, inbox.slot(2))
        await turns(3)
        engine.end(0)
        await engine.entered()
        engine.end(1)

    assert results_of(inbox) == {1: 1, 2: 2}


async def test_a_thread_that_waits_for_quiet_is_woken_by_those_who_come_after_its_queue_was_cancelled():
    engine, inbox = PuppetEngine(), Inbox()
    async with Batcher(engine, until_quiet=True) as batcher:
        batcher.submit(1, inbox.slot(1))
        await engine.entered()
        ticket = batcher.submit("left", inbox.slot("left"))
        engine.end(0)
        ticket.cancel()
        await turns(5)
        batcher.submit(2, inbox.slot(2))
        await engine.entered()
        engine.end(1)

    assert engine.calls == [[1], [2]]


async def test_a_batcher_that_was_closed_while_its_thread_waited_leaves_no_timer():
    engine, inbox = PuppetEngine(), Inbox()
    batcher = Batcher(engine, until_quiet=True)
    batcher.submit(1, inbox.slot(1))
    await engine.entered()
    ticket = batcher.submit(2, inbox.slot(2))
    engine.end(0)
    await inbox.wait(1)
    ticket.cancel()
    await batcher.aclose()
    await turns(5)

    loop: Any = asyncio.get_running_loop()
    assert [timer for timer in loop._scheduled if not timer.cancelled()] == []


async def test_what_waits_for_quiet_is_run_by_a_batcher_that_closes():
    engine, inbox = PuppetEngine(), Inbox()
    batcher = Batcher(engine, until_quiet=True)
    batcher.submit(1, inbox.slot(1))
    await engine.entered()
    batcher.submit(2, inbox.slot(2))
    engine.end(0)
    closing = asyncio.ensure_future(batcher.aclose())
    await engine.entered()
    engine.end(1)
    await closing

    assert results_of(inbox) == {1: 1, 2: 2}
