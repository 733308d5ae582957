"""Calls on the event loop itself: while they are short."""

import asyncio
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from batching import virtual_time
from batching.fakes import PATIENCE_S, FakeClock, Inbox, RecordingObserver, turns
from redserve.batching import Answer, Batcher, BatchPolicy
from redserve.batching.dispatcher import MAX_STUCK
from redserve.errors import ModelError, RunTimeout, ShuttingDown

LIMIT_S = 200e-6


def ignore(answer: Answer[Any]) -> None:
    """Nobody waits for it."""


class Echo:
    """Returns its payloads; each call takes `takes_s` of a fake clock."""

    def __init__(self, clock: FakeClock, takes_s: float = 50e-6) -> None:
        self.clock = clock
        self.takes_s = takes_s
        self.calls: list[list[Any]] = []
        self.threads: list[threading.Thread] = []

    def __call__(self, payloads: list[Any]) -> list[Any]:
        self.calls.append(payloads)
        self.threads.append(threading.current_thread())
        self.clock.now_s += self.takes_s
        return payloads


class Hanging(Echo):
    """Hangs in one call until it is interrupted; a batch with a bad one fails."""

    def __init__(self, clock: FakeClock, *, at_call: int) -> None:
        super().__init__(clock)
        self.at_call = at_call
        self.interrupted = threading.Event()

    def __call__(self, payloads: list[Any]) -> list[Any]:
        super().__call__(payloads)
        if len(self.calls) == self.at_call:
            until_s = time.monotonic() + PATIENCE_S
            while not self.interrupted.is_set():  # to wait on a lock would be found to block the loop
                assert time.monotonic() < until_s
            raise ModelError("the run was interrupted")
        if "bad" in payloads:
            raise ValueError("bad")
        return payloads

    def interrupt(self) -> None:
        self.interrupted.set()


def refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def batcher_of(engine: Any, clock: Any, **rest: Any) -> Batcher[Any, Any]:
    return Batcher(engine, inline_below_s=LIMIT_S, clock=clock, **rest)


async def test_what_one_turn_of_the_loop_brings_is_one_call_in_the_thread_of_the_loop():
    clock, inbox = FakeClock(), Inbox()
    engine, observer = Echo(clock), RecordingObserver()
    async with batcher_of(engine, clock, observer=observer) as batcher:
        assert batcher.is_inline
        for key in range(3):
            batcher.submit(key, inbox.slot(key))
        assert not inbox.answers
        await turns(1)

    assert engine.calls == [[0, 1, 2]]
    assert engine.threads == [threading.current_thread()]
    assert {key: answer.result for key, answer in inbox.answers.items()} == {0: 0, 1: 1, 2: 2}
    assert [(report.rows, report.why) for report in observer.reports] == [(3, "idle")]


async def test_what_waits_behind_a_full_batch_is_joined_by_what_comes_meanwhile():
    clock, inbox = FakeClock(), Inbox()
    engine = Echo(clock)
    async with batcher_of(engine, clock, policy=BatchPolicy(max_batch_size=2)) as batcher:
        for key in range(3):
            batcher.submit(key, inbox.slot(key))
        asyncio.get_running_loop().call_soon(lambda: batcher.submit("late", inbox.slot("late")))
        await inbox.wait(4)

    assert engine.calls == [[0, 1], [2, "late"]]


SHORT_AGAIN = 20  # calls, until one is usually short


async def call(batcher: Batcher[Any, Any], count: int) -> None:
    for _ in range(count):
        await batcher("any")


async def grow(batcher: Batcher[Any, Any], engine: Echo) -> None:
    """Call until a thread does it, and be short again from then on."""
    assert batcher.is_inline
    short_s, engine.takes_s = engine.takes_s, 0.01
    await call(batcher, 20)
    assert not batcher.is_inline
    engine.takes_s = short_s


async def test_calls_that_grow_go_to_a_thread():
    clock = FakeClock()
    engine = Echo(clock)
    async with batcher_of(engine, clock) as batcher:
        assert await batcher("short") == "short"
        await grow(batcher, engine)
        assert await batcher("short again") == "short again"

    assert engine.threads[1] is threading.current_thread()
    assert engine.threads[-1] is not threading.current_thread()


async def test_calls_that_have_grown_are_tried_on_the_loop_again_each_time_after_twice_as_long():
    clock = FakeClock()
    engine = Echo(clock)
    async with batcher_of(engine, clock) as batcher:
        for away_s in (10, 20, 40, 80, 160, 160):
            await grow(batcher, engine)
            clock.now_s += away_s - 1
            await call(batcher, SHORT_AGAIN)
            assert not batcher.is_inline
            clock.now_s += 1
            await call(batcher, 2)
            assert batcher.is_inline
            assert engine.threads[-1] is threading.current_thread()
        clock.now_s += 160
        await grow(batcher, engine)
        clock.now_s += 10
        await call(batcher, SHORT_AGAIN)
        assert batcher.is_inline


async def test_calls_that_have_grown_for_good_are_not_tried_on_the_loop_again():
    clock = FakeClock()
    engine = Echo(clock)
    async with batcher_of(engine, clock) as batcher:
        await grow(batcher, engine)
        engine.takes_s = 0.01
        clock.now_s += 1e6
        on_the_loop = engine.threads.count(threading.current_thread())
        await call(batcher, 100)
        assert not batcher.is_inline

    assert engine.threads.count(threading.current_thread()) == on_the_loop


async def test_closing_while_a_thread_stands_in_runs_what_is_queued():
    clock, inbox = FakeClock(), Inbox()
    engine = Echo(clock)
    async with batcher_of(engine, clock, policy=BatchPolicy(max_batch_size=1)) as batcher:
        await grow(batcher, engine)
        clock.now_s += 10
        for key in range(3):
            batcher.submit(key, inbox.slot(key))

    assert {key: answer.result for key, answer in inbox.answers.items()} == {0: 0, 1: 1, 2: 2}


async def test_a_thread_that_stands_in_and_is_cut_off_hands_nothing_over():
    class Waiting(Echo):
        begun, ends = threading.Semaphore(0), threading.Semaphore(0)

        def __call__(self, payloads: list[Any]) -> list[Any]:
            super().__call__(payloads)
            if payloads == ["hangs"]:
                self.begun.release()
                assert self.ends.acquire(timeout=PATIENCE_S)
            return payloads

    clock, inbox = FakeClock(), Inbox()
    engine = Waiting(clock)
    async with batcher_of(engine, clock, max_run_s=0.05) as batcher:
        for hung in range(MAX_STUCK + 2):  # none is left behind as one that is still stuck
            await grow(batcher, engine)
            await call(batcher, SHORT_AGAIN)
            batcher.submit("hangs", inbox.slot(hung))
            assert await asyncio.to_thread(engine.begun.acquire, timeout=PATIENCE_S)
            clock.now_s += 1_000
            answers = await inbox.wait(hung + 1)
            assert isinstance(answers[hung].error, RunTimeout)
            assert not batcher.is_stalled
            assert not batcher.is_inline  # what hangs goes on in threads
            thread = engine.threads[-1]
            engine.ends.release()
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
            await call(batcher, 2)


async def test_one_stall_is_no_growth():
    clock = FakeClock()
    engine = Echo(clock)
    async with batcher_of(engine, clock) as batcher:
        engine.takes_s = 30.0
        await batcher("stalled")
        engine.takes_s = 50e-6
        await batcher("short")
        assert batcher.is_inline


async def test_a_call_that_hangs_is_interrupted_and_done_again_by_a_thread():
    clock = FakeClock()
    engine, observer = Hanging(clock, at_call=1), RecordingObserver()
    async with batcher_of(engine, clock, observer=observer) as batcher:
        assert await asyncio.gather(batcher(1), batcher(2)) == [1, 2]
        assert await batcher(3) == 3
        assert engine.calls == [[1, 2], [1, 2], [3]]
        assert engine.threads[0] is threading.current_thread()
        assert engine.threads[1] is engine.threads[2] is not engine.threads[0]
        assert [(report.rows, report.has_failed) for report in observer.reports] == [(2, False), (1, False)]
        await call(batcher, SHORT_AGAIN)
        assert not batcher.is_inline
        clock.now_s += 160
        await call(batcher, 2)
        assert batcher.is_inline  # it was the machine that stood still, say


PAUSED = """
import asyncio, os, signal, subprocess, time
from redserve.batching import Batcher

class Paused:
    calls = 0

    def __call__(self, payloads):
        self.calls += 1
        if self.calls == 2:  # the guard is there
            subprocess.Popen(["sh", "-c", f"sleep 0.8; kill -CONT {os.getpid()}"])
            os.kill(os.getpid(), signal.SIGSTOP)
            until_s = time.monotonic() + 0.03  # goes on for a moment, so that the guard sees it
            while time.monotonic() < until_s:
                pass
        return payloads

    def interrupt(self):
        print("interrupted")

async def main():
    engine = Paused()
    async with Batcher(engine, inline_below_s=1e-3) as batcher:
        for _ in range(3):
            await batcher("any")
        print(engine.calls, batcher.is_inline)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="stops a process by a signal")
def test_a_pause_of_the_whole_process_is_no_hang():
    done = subprocess.run(
        [sys.executable, "-c", PAUSED], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )

    assert done.stdout == "3 True\n"


async def test_a_batch_of_which_a_part_hangs_is_reported_as_a_whole_once():
    clock = FakeClock()
    engine, observer = Hanging(clock, at_call=3), RecordingObserver()
    async with batcher_of(engine, clock, observer=observer) as batcher:
        answers = await asyncio.gather(*map(batcher, ("bad", 1, 2, 3)), return_exceptions=True)

    assert answers[1:] == [1, 2, 3]
    assert isinstance(answers[0], ModelError)
    assert [report.rows for report in observer.reports if report.why != "split"] == [4]
    assert sum(len(report.waits_s) for report in observer.reports) == 4


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_a_wish_to_exit_ends_the_loop_and_everybody_is_answered(error: BaseException):
    inbox = Inbox()

    def engine(payloads: list[Any]) -> list[Any]:
        raise error

    async def main() -> None:
        batcher = batcher_of(engine, FakeClock(), policy=BatchPolicy(max_batch_size=1))
        for key in range(2):
            batcher.submit(key, inbox.slot(key))
        await asyncio.Event().wait()

    with pytest.raises(type(error)):
        asyncio.run(main())

    assert isinstance(inbox.answers[0].error, ModelError)
    assert isinstance(inbox.answers[1].error, ShuttingDown)


async def test_where_no_thread_can_be_started_calls_stay_on_the_loop(monkeypatch):
    clock = FakeClock()
    engine = Echo(clock, takes_s=0.01)
    async with batcher_of(engine, clock) as batcher:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        await call(batcher, 30)
        monkeypatch.undo()
        assert batcher.is_inline
        await call(batcher, 2)
        assert not batcher.is_inline


async def test_only_the_request_at_fault_fails():
    def fails_for_13(payloads: list[int]) -> list[int]:
        if 13 in payloads:
            raise ValueError("13")
        return payloads

    async with batcher_of(fails_for_13, FakeClock()) as batcher:
        answers = await asyncio.gather(*map(batcher, range(10, 18)), return_exceptions=True)

    assert [answer for answer in answers if not isinstance(answer, ModelError)] == [10, 11, 12, 14, 15, 16, 17]


def test_an_idle_batcher_waits_for_company_where_it_is_told_to():
    ran: dict[float, list[str]] = {}

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def engine(payloads: list[str]) -> list[str]:
            ran[round(loop.time(), 6)] = payloads
            return payloads

        policy = BatchPolicy(max_queue_delay_s=0.010)
        async with batcher_of(engine, loop.time, policy=policy, max_run_s=None) as batcher:
            first = asyncio.create_task(batcher("first"))
            await asyncio.sleep(0.004)
            await asyncio.gather(first, batcher("second"))

    virtual_time.run(main())

    assert ran == {0.010: ["first", "second"]}


async def test_where_no_thread_can_be_started_what_hangs_is_answered(monkeypatch):
    engine = Hanging(FakeClock(), at_call=2)
    async with batcher_of(engine, engine.clock) as batcher:
        await call(batcher, 1)  # the guard is there
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ModelError, match="interrupted"):
            await batcher("hangs")
        await call(batcher, 1)
        monkeypatch.undo()
        assert batcher.is_inline


def test_while_something_always_waits_for_company_one_timer_is_enough():
    async def main() -> int:
        loop = asyncio.get_running_loop()
        engine = Echo(FakeClock())
        policy = BatchPolicy(max_batch_size=2, max_queue_delay_s=0.010)
        async with batcher_of(engine, loop.time, policy=policy, max_run_s=None) as batcher:
            batcher.submit(0, ignore)
            for _ in range(100):
                batcher.submit(1, ignore)
                batcher.submit(2, ignore)
                await asyncio.sleep(0.001)
            assert len(engine.calls) == 100
            return sum(not timer.cancelled() for timer in loop._scheduled)  # type: ignore[attr-defined]

    assert virtual_time.run(main()) <= 2  # the other is for deadlines


async def test_closing_runs_what_is_queued():
    clock, inbox = FakeClock(), Inbox()
    engine = Echo(clock)
    batcher = batcher_of(engine, clock, policy=BatchPolicy(max_batch_size=2))
    for key in range(5):
        batcher.submit(key, inbox.slot(key))
    await batcher.aclose()

    assert len(inbox.answers) == 5
    assert engine.calls == [[0, 1], [2, 3], [4]]


async def test_only_one_plain_function_can_run_inline():
    async def a_task(payloads: list[Any]) -> list[Any]:
        return payloads

    for functions in (a_task, [list, list]):
        with pytest.raises(ValueError, match="one plain function"):
            Batcher(functions, inline_below_s=LIMIT_S)  # type: ignore[arg-type]
