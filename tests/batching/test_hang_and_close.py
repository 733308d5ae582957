"""What hangs is cut off, what is closed drains, and everybody gets an answer."""

import asyncio
import threading
from typing import Any

import pytest

from batching import virtual_time
from batching.fakes import PATIENCE_S, FakeClock, Inbox, InterruptibleEngine, PuppetEngine, RecordingObserver, turns
from redserve.batching import Batcher, BatchPolicy
from redserve.batching.dispatcher import MAX_STUCK
from redserve.errors import RunTimeout, ShuttingDown


async def test_a_hung_run_is_answered_and_the_queue_goes_on():
    engine, inbox, observer, clock = InterruptibleEngine(), Inbox(), RecordingObserver(), FakeClock()
    async with Batcher(engine, max_run_s=0.01, observer=observer, clock=clock) as batcher:
        batcher.submit("hangs", inbox.slot("hangs"))
        await engine.entered()
        batcher.submit("next", inbox.slot("next"))
        clock.now_s += 1
        await engine.entered()  # by another thread: the first is still in its call
        engine.end(1)
        answers = await inbox.wait(2)
        engine.end(0)  # late, and ignored
        engine.threads[0].join(PATIENCE_S)
        await turns()

    assert isinstance(answers["hangs"].error, RunTimeout)
    assert answers["hangs"].compute_s == 1
    assert answers["next"].result == "next"
    assert engine.interruptions == 1
    assert engine.threads[0] is not engine.threads[1]
    assert not engine.threads[0].is_alive()
    assert sorted(report.rows for report in observer.reports) == [1, 1]


async def test_a_hung_batch_that_fails_late_is_not_run_again():
    engine = PuppetEngine()
    async with Batcher(engine, max_run_s=0.01) as batcher:
        results = await asyncio.gather(batcher(1), batcher(2), return_exceptions=True)
        assert [type(result) for result in results] == [RunTimeout, RunTimeout]
        engine.end(0, lambda payloads: [][1])
        engine.threads[0].join(PATIENCE_S)

    assert engine.calls == [[1, 2]]


async def test_a_hang_in_a_part_of_a_failed_batch_is_reported_as_that_part():
    engine, observer, clock = PuppetEngine(), RecordingObserver(), FakeClock()

    def failing(payloads: list[int]) -> list[int]:
        raise ValueError

    async with Batcher(engine, max_run_s=0.01, observer=observer, clock=clock) as batcher:
        calls = [asyncio.create_task(batcher(index)) for index in range(4)]
        await engine.entered()
        engine.end(0, failing)
        await engine.entered()
        clock.now_s += 1
        results = await asyncio.gather(*calls, return_exceptions=True)
        engine.end(1)

    assert {type(result) for result in results} == {RunTimeout}
    assert [(report.why, report.rows, len(report.waits_s), report.compute_s) for report in observer.reports] == [
        ("idle", 4, 4, 0),
        ("split", 2, 0, 1),
    ]


async def test_when_every_thread_hangs_requests_fail_at_once_until_one_comes_back():
    engine, inbox, clock = PuppetEngine(), Inbox(), FakeClock()
    async with Batcher(engine, max_run_s=0.01, policy=BatchPolicy(max_batch_size=1), clock=clock) as batcher:
        hanging = MAX_STUCK + 1
        for index in range(hanging + 3):
            batcher.submit(index, inbox.slot(index))
        for _ in range(hanging):
            await engine.entered()
            clock.now_s += 1
        answers = await inbox.wait(hanging + 3)
        assert len(engine.calls) == hanging
        assert all(isinstance(answer.error, RunTimeout) for answer in answers.values())
        assert batcher.is_stalled
        with pytest.raises(RunTimeout):
            await batcher("refused at once")
        assert len(engine.calls) == hanging

        engine.end(0)
        while batcher.is_stalled:
            await turns()
        call = asyncio.create_task(batcher("served again"))
        await engine.entered()
        engine.end(hanging)
        assert await call == "served again"
        for index in range(1, hanging):
            engine.end(index)


async def test_an_interrupt_that_fails_is_logged_and_harmless(caplog: pytest.LogCaptureFixture):
    class Stubborn(PuppetEngine):
        def interrupt(self) -> None:
            raise RuntimeError("no")

    engine = Stubborn()
    async with Batcher(engine, max_run_s=0.01) as batcher:
        with pytest.raises(RunTimeout):
            await batcher(1)
        engine.end(0)

    assert {"interrupt failed", "batch cut off"} <= {record.message for record in caplog.records}


def test_a_hung_async_function_is_cancelled_to_the_moment():
    async def main() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        cancelled_s: list[float] = []

        async def engine(payloads: list[str]) -> list[str]:
            try:
                await asyncio.sleep(3600 if "hangs" in payloads else 0.9)
            except asyncio.CancelledError:
                cancelled_s.append(loop.time())
                raise
            return payloads

        async with Batcher(engine, max_run_s=1.0, clock=loop.time) as batcher:
            assert await batcher("fine") == "fine"
            assert await batcher("fine too") == "fine too"
            with pytest.raises(RunTimeout):
                await batcher("hangs")
            assert await batcher("fine again") == "fine again"
        return cancelled_s[0], loop.time()

    cancelled_s, ended_s = virtual_time.run(main())

    assert cancelled_s == pytest.approx(2.8, abs=0.0011)  # the loop's timers are no finer
    assert ended_s == pytest.approx(3.7, abs=0.0011)


async def test_an_async_function_that_never_waits_leaves_the_loop_to_others_between_batches():
    turn = 0
    turns_seen: list[int] = []

    async def engine(payloads: list[int]) -> list[int]:
        turns_seen.append(turn)
        return payloads

    async with Batcher(engine, policy=BatchPolicy(max_batch_size=1)) as batcher:
        for index in range(5):
            batcher.submit(index, lambda _: None)
        while batcher.queued_rows or batcher.running_rows:
            turn += 1
            await turns(1)

    assert len(set(turns_seen)) == 5


@pytest.mark.parametrize("grace_s", [None, 0])
def test_an_async_function_that_blocks_the_loop_too_long_has_run_all_the_same(grace_s: float | None):
    async def main() -> None:
        loop, inbox, observer = asyncio.get_running_loop(), Inbox(), RecordingObserver()

        async def engine(payloads: list[int]) -> list[int]:
            loop._jumping.now_s += 2.0  # type: ignore[attr-defined]
            return payloads

        batcher: Batcher[int, int] = Batcher(engine, max_run_s=1.0, observer=observer, clock=loop.time)
        for index in range(2):
            batcher.submit(index, inbox.slot(index), group=index)
        await turns(3)
        await batcher.aclose(grace_s=grace_s)
        assert inbox.answers[0].result == 0
        assert len(inbox.answers) == 2
        assert len(observer.reports) == sum(answer.error is None for answer in inbox.answers.values())

    virtual_time.run(main())


def test_an_async_function_that_ignores_its_cancellation_is_left_behind():
    async def main() -> None:
        free = asyncio.Event()

        async def engine(payloads: list[str]) -> list[str]:
            while "hangs" in payloads and not free.is_set():
                try:
                    await free.wait()
                except asyncio.CancelledError:
                    continue
            return payloads

        async with Batcher(engine, max_run_s=1.0, clock=asyncio.get_running_loop().time) as batcher:
            with pytest.raises(RunTimeout):
                await batcher("hangs")
            assert await batcher("fine") == "fine"
            free.set()
            await turns()

    virtual_time.run(main())


async def test_closing_runs_what_is_queued_and_refuses_the_rest():
    engine, inbox = PuppetEngine(), Inbox()
    batcher: Batcher[str, str] = Batcher(engine, policy=BatchPolicy(max_batch_size=1))
    for key in "ab":
        batcher.submit(key, inbox.slot(key))
    await engine.entered()
    closing = asyncio.create_task(batcher.aclose())
    await turns()

    with pytest.raises(ShuttingDown):
        batcher.submit("c", inbox.slot("c"))
    engine.end(0)
    await engine.entered()
    assert not closing.done()
    engine.end(1)
    await closing
    await batcher.aclose()

    assert {key: answer.result for key, answer in inbox.answers.items()} == {"a": "a", "b": "b"}
    with pytest.raises(ShuttingDown):
        await batcher("d")


async def test_whoever_is_queued_when_closing_begins_is_answered_when_it_ends():
    for _ in range(200):
        inbox = Inbox()
        batcher: Batcher[int, int] = Batcher([list, list])
        for index in range(3):
            batcher.submit(index, inbox.slot(index), group=index)
        await turns(1)
        await batcher.aclose()
        assert set(inbox.answers) == {0, 1, 2}


async def test_after_the_grace_time_the_rest_is_answered():
    engine, inbox, observer = InterruptibleEngine(), Inbox(), RecordingObserver()
    batcher: Batcher[str, str] = Batcher(engine, policy=BatchPolicy(max_batch_size=1), observer=observer)
    for key in "ab":
        batcher.submit(key, inbox.slot(key))
    await engine.entered()

    await batcher.aclose(grace_s=0.01)

    assert [type(inbox.answers[key].error) for key in "ab"] == [ShuttingDown, ShuttingDown]
    assert (batcher.queued_rows, batcher.running_rows) == (0, 0)
    assert engine.interruptions == 1
    assert observer.is_closed
    engine.end(0)
    engine.threads[0].join(PATIENCE_S)
    await turns()
    assert engine.calls == [["a"]]


async def test_whoever_closes_without_patience_ends_the_wait_of_whoever_has_it():
    engine = PuppetEngine()
    batcher: Batcher[int, int] = Batcher(engine, max_run_s=None)
    call = asyncio.create_task(batcher(1))
    await engine.entered()
    patient = asyncio.create_task(batcher.aclose())
    await turns()

    await batcher.aclose(grace_s=0)
    async with asyncio.timeout(PATIENCE_S):
        await patient

    with pytest.raises(ShuttingDown):
        await call
    engine.end(0)


async def test_closing_ends_the_threads_of_every_instance():
    before = set(threading.enumerate())
    batcher: Batcher[int, int] = Batcher([list, list, list])
    mine = set(threading.enumerate()) - before
    assert len(mine) == 3

    await batcher.aclose()

    for thread in mine:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


async def test_closing_while_everything_hangs_ends_with_the_watchdog():
    engine = PuppetEngine()
    batcher: Batcher[int, int] = Batcher(engine, max_run_s=0.01, policy=BatchPolicy(max_batch_size=1))
    calls = [asyncio.create_task(batcher(index)) for index in range(8)]
    await turns()
    async with asyncio.timeout(PATIENCE_S):
        await batcher.aclose()
    results = await asyncio.gather(*calls, return_exceptions=True)

    assert {type(result) for result in results} == {RunTimeout}
    for index in range(len(engine.calls)):
        engine.end(index)


def test_a_loop_that_is_closed_under_a_running_batch_leaves_no_traceback(capfd: pytest.CaptureFixture[str]):
    engine = PuppetEngine()

    async def main() -> None:
        batcher: Batcher[int, int] = Batcher([engine] * 4, policy=BatchPolicy(max_batch_size=1))
        for index in range(2):
            batcher.submit(index, lambda _: None)
        for _ in range(2):
            await engine.entered()

    before = set(threading.enumerate())
    asyncio.run(main())
    mine = set(threading.enumerate()) - before
    assert len(mine) == 4
    for index in range(2):
        engine.end(index)
    for thread in mine:
        thread.join(PATIENCE_S)

    assert not any(thread.is_alive() for thread in mine)
    assert capfd.readouterr() == ("", "")


def test_tasks_cancelled_at_the_end_of_the_loop_answer_their_batch():
    inbox: list[Any] = []

    async def main() -> None:
        async def engine(payloads: list[int]) -> list[int]:
            await asyncio.Event().wait()
            return payloads

        batcher: Batcher[int, int] = Batcher([engine, engine])
        batcher.submit(1, inbox.append)
        await turns()
        batcher.submit(2, inbox.append, group="another")
        batcher.submit(3, inbox.append, group="a third")
        await turns()

    asyncio.run(main())

    assert [type(answer.error) for answer in inbox] == [ShuttingDown] * 3


def test_an_async_function_that_wants_to_exit_does_and_its_batch_is_answered():
    inbox: list[Any] = []

    async def main() -> None:
        async def engine(payloads: list[int]) -> list[int]:
            raise SystemExit(3)

        batcher: Batcher[int, int] = Batcher(engine)
        batcher.submit(1, inbox.append)
        await asyncio.Event().wait()

    with pytest.raises(SystemExit):
        asyncio.run(main())

    assert isinstance(inbox[0].error.__cause__, SystemExit)
