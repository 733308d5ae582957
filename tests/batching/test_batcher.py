"""Threads, held in the test's hands: nobody sleeps, every call ends when the test says so."""

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from batching.fakes import Inbox, PuppetEngine, RecordingObserver, turns
from redserve.batching import Batcher, BatchPolicy
from redserve.errors import BadRequest, ModelError, QueueFull, WrongResultCount


def echo(payloads: list[Any]) -> list[Any]:
    return payloads


async def test_rows_join_until_the_engine_takes_the_batch():
    engine, inbox = PuppetEngine(), Inbox()
    async with Batcher(engine) as batcher:
        batcher.submit("a", inbox.slot("a"))
        await engine.entered()
        for key in "bcd":
            batcher.submit(key, inbox.slot(key))
            await turns()
        assert (batcher.queued_rows, batcher.running_rows) == (3, 1)

        engine.end(0)
        await engine.entered()
        assert (batcher.queued_rows, batcher.running_rows) == (0, 3)
        engine.end(1)
        answers = await inbox.wait(4)

    assert engine.calls == [["a"], ["b", "c", "d"]]
    assert {key: answer.result for key, answer in answers.items()} == {key: key for key in "abcd"}
    assert [answers[key].batch_rows for key in "ab"] == [1, 3]
    assert all(answer.error is None and answer.queue_s >= 0 and answer.compute_s > 0 for answer in answers.values())


async def test_each_instance_has_one_thread_and_keeps_it():
    engine = PuppetEngine()
    async with Batcher(engine, name="mine") as batcher:
        for index in range(3):
            call = asyncio.create_task(batcher(index))
            await engine.entered()
            engine.end(index)
            assert await call == index

    assert len(set(engine.threads)) == 1
    assert (engine.threads[0].name, engine.threads[0].daemon) == ("mine", True)
    engine.threads[0].join(20)
    assert not engine.threads[0].is_alive()


async def test_instances_work_side_by_side_and_a_busy_one_leaves_the_rest_to_the_other():
    engines, inbox = [PuppetEngine(), PuppetEngine()], Inbox()
    async with Batcher(engines, policy=BatchPolicy(max_batch_size=1)) as batcher:
        for index in range(3):
            batcher.submit(index, inbox.slot(index))
        await engines[0].entered()
        await engines[1].entered()
        assert batcher.queued_rows == 1

        engines[0].end(0)
        await engines[0].entered()
        engines[0].end(1)
        await inbox.wait(2)
        engines[1].end(0)
        await inbox.wait(3)


async def test_a_delay_is_waited_in_the_thread():
    observer = RecordingObserver()
    policy = BatchPolicy(max_batch_size=2, max_queue_delay_s=0.001)
    async with Batcher(echo, policy=policy, observer=observer) as batcher:
        await batcher("alone")
        await asyncio.gather(batcher("two"), batcher("together"))

    assert [report.why for report in observer.reports] == ["delay", "full"]
    assert observer.reports[0].waits_s[0] >= 0.001


async def test_a_caller_who_leaves_the_queue_takes_its_rows_along():
    engine, inbox = PuppetEngine(), Inbox()
    async with Batcher(engine) as batcher:
        batcher.submit("running", inbox.slot("running"))
        await engine.entered()
        gone = batcher.submit("gone", inbox.slot("gone"), rows=5)
        batcher.submit("stays", inbox.slot("stays"))
        gone.cancel()
        gone.cancel()
        assert batcher.queued_rows == 1
        engine.end(0)
        await engine.entered()
        engine.end(1)
        await inbox.wait(2)

    assert engine.calls == [["running"], ["stays"]]
    assert set(inbox.answers) == {"running", "stays"}


async def test_a_caller_who_leaves_a_running_batch_does_not_disturb_it():
    engine, inbox = PuppetEngine(), Inbox()
    async with Batcher(engine) as batcher:
        tickets = [batcher.submit(index, inbox.slot(index)) for index in range(3)]
        await engine.entered()
        tickets[1].cancel()
        engine.end(0)
        await inbox.wait(2)

    assert {key: answer.result for key, answer in inbox.answers.items()} == {0: 0, 2: 2}


async def test_cancelling_the_await_cancels_the_request():
    engine = PuppetEngine()
    async with Batcher(engine) as batcher:
        first = asyncio.create_task(batcher("first"))
        await engine.entered()
        second = asyncio.create_task(batcher("second"))
        await turns()
        assert batcher.queued_rows == 1

        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert batcher.queued_rows == 0
        engine.end(0)
        assert await first == "first"

    assert engine.calls == [["first"]]


async def test_one_bad_of_32_fails_alone():
    calls: list[int] = []

    def engine(payloads: list[int]) -> list[int]:
        calls.append(len(payloads))
        if 13 in payloads:
            raise ValueError("13 is unlucky")
        return [payload * 2 for payload in payloads]

    observer = RecordingObserver()
    async with Batcher(engine, observer=observer) as batcher:
        results = await asyncio.gather(*(batcher(index) for index in range(32)), return_exceptions=True)

    bad = results.pop(13)
    assert results == [index * 2 for index in range(32) if index != 13]
    assert isinstance(bad, ModelError)
    assert str(bad) == "ValueError: 13 is unlucky"
    assert isinstance(bad.__cause__, ValueError)
    assert len(calls) <= 11
    assert [report.rows for report in observer.reports] == calls
    assert [report.why for report in observer.reports] == ["full"] + ["split"] * (len(calls) - 1)
    assert [len(report.waits_s) for report in observer.reports] == [32] + [0] * (len(calls) - 1)


async def test_an_error_of_ours_arrives_as_it_is():
    def engine(payloads: list[int]) -> list[int]:
        raise BadRequest("not this")

    async with Batcher(engine) as batcher:
        with pytest.raises(BadRequest, match="not this"):
            await batcher(1)


async def test_without_a_budget_a_failed_batch_fails_whole():
    calls: list[int] = []

    def engine(payloads: list[int]) -> list[int]:
        calls.append(len(payloads))
        raise ValueError

    async with Batcher(engine, policy=BatchPolicy(max_reruns=0)) as batcher:
        results = await asyncio.gather(*(batcher(index) for index in range(4)), return_exceptions=True)

    assert calls == [4]
    assert [type(result) for result in results] == [ModelError] * 4
    assert len({id(result) for result in results}) == 4  # a traceback of its own for each


async def test_a_result_that_is_an_exception_fails_that_call_alone():
    def engine(payloads: list[int]) -> list[int | Exception]:
        return [ValueError("odd") if payload % 2 else payload for payload in payloads]

    async with Batcher(engine) as batcher:
        results = await asyncio.gather(*(batcher(index) for index in range(4)), return_exceptions=True)

    assert [results[0], results[2]] == [0, 2]
    assert [str(results[1]), str(results[3])] == ["ValueError: odd", "ValueError: odd"]


@pytest.mark.parametrize("count", [0, 2, 4])
async def test_a_wrong_number_of_results_fails_the_batch_and_is_not_tried_again(count: int):
    calls: list[int] = []

    def engine(payloads: list[int]) -> list[int]:
        calls.append(len(payloads))
        return [0] * count

    async with Batcher(engine) as batcher:
        results = await asyncio.gather(*(batcher(index) for index in range(3)), return_exceptions=True)

    assert calls == [3]
    assert all(isinstance(result, WrongResultCount) for result in results)
    assert (results[0].expected, results[0].got) == (3, count)


class Untellable(Exception):
    """As some libraries' errors do, it fails when it is printed."""

    def __str__(self) -> str:
        raise AttributeError("no response")


async def test_an_error_that_cannot_be_told_is_told_by_its_name():
    def engine(payloads: list[int]) -> list[Any]:
        if 0 in payloads:
            raise Untellable
        return [Untellable() for _ in payloads]

    async with Batcher(engine, policy=BatchPolicy(max_batch_size=1)) as batcher:
        results = await asyncio.gather(batcher(0), batcher(1), return_exceptions=True)

    assert [(type(result), str(result)) for result in results] == [(ModelError, "Untellable")] * 2


async def test_a_result_that_is_a_cancellation_is_no_result():
    async def engine(payloads: list[int]) -> list[Any]:
        return await asyncio.gather(*(asyncio.sleep(0) for _ in payloads[1:]), cancelled(), return_exceptions=True)

    async def cancelled() -> None:
        raise asyncio.CancelledError

    async with Batcher(engine) as batcher:
        results = await asyncio.gather(batcher(0), batcher(1), return_exceptions=True)

    assert results[0] is None
    assert str(results[1]) == "CancelledError: "


class Exits:
    """A sequence that cannot be read."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Any:
        raise SystemExit(3)


class Table:
    """Like a data frame: as long as its rows, and iterates over its columns."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Any:
        return iter(self.keys())

    def keys(self) -> list[str]:
        return ["a", "b", "c"]


@pytest.mark.parametrize(
    "returned",
    [None, 7, "abc", {0: 0, 1: 1, 2: 2}, {0, 1, 2}, Table(), Exits(), (index for index in range(3))],
    ids=lambda returned: type(returned).__name__,
)
async def test_what_is_no_list_of_results_fails_loudly(returned: Any):
    async with Batcher(lambda payloads: returned) as batcher:
        results = await asyncio.gather(*(batcher(index) for index in range(3)), return_exceptions=True)

    assert {type(result) for result in results} == {ModelError}
    assert type(returned).__name__ in str(results[0])


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
async def test_even_a_wish_to_exit_answers_the_batch_and_the_thread_goes_on(error: BaseException):
    wishes = [error]

    def engine(payloads: list[int]) -> list[int]:
        if wishes:
            raise wishes.pop()
        return payloads

    async with Batcher(engine) as batcher:
        results = await asyncio.gather(batcher(1), batcher(2), return_exceptions=True)
        assert await batcher(3) == 3

    assert [type(result) for result in results] == [ModelError, ModelError]
    assert results[0].__cause__ is error


async def test_a_full_queue_turns_away_and_takes_again():
    engine, inbox = PuppetEngine(), Inbox()
    async with Batcher(engine, policy=BatchPolicy(max_queue_rows=2)) as batcher:
        batcher.submit(0, inbox.slot(0))
        await engine.entered()
        batcher.submit(1, inbox.slot(1))
        waiting = batcher.submit(2, inbox.slot(2))
        with pytest.raises(QueueFull):
            batcher.submit(3, inbox.slot(3))
        with pytest.raises(QueueFull):
            await batcher(3)
        waiting.cancel()
        batcher.submit(4, inbox.slot(4))
        engine.end(0)
        await engine.entered()
        engine.end(1)
        await inbox.wait(3)

    assert set(inbox.answers) == {0, 1, 4}


def split(payload: list[int], max_rows: int) -> list[tuple[list[int], int]]:
    parts = [payload[start : start + max_rows] for start in range(0, len(payload), max_rows)]
    return [(part, len(part)) for part in parts]


def join(results: list[list[int]]) -> list[int]:
    return [number for result in results for number in result]


def large_batcher(engine: Any, **policy: int) -> Batcher[list[int], list[int]]:
    return Batcher(engine, policy=BatchPolicy(max_batch_size=4, **policy), split=split, join=join)


async def test_a_request_larger_than_a_batch_is_split_and_joined():
    sizes: list[int] = []
    inbox = Inbox()

    def engine(payloads: list[list[int]]) -> list[list[int]]:
        sizes.append(sum(map(len, payloads)))
        return [[-number for number in payload] for payload in payloads]

    async with large_batcher(engine) as batcher:
        batcher.submit(list(range(10)), inbox.slot("large"), rows=10, size_bytes=100)
        assert batcher.queued_rows == 10
        answer = (await inbox.wait(1))["large"]

    assert sizes == [4, 4, 2]
    assert answer.result == [-number for number in range(10)]
    assert (answer.error, answer.batch_rows) == (None, 4)


async def test_the_parts_are_queued_together_or_not_at_all():
    engine, inbox = PuppetEngine(), Inbox()
    async with large_batcher(engine, max_queue_rows=10) as batcher:
        batcher.submit([0], inbox.slot("running"))
        await engine.entered()
        batcher.submit([0], inbox.slot("queued"))
        with pytest.raises(QueueFull):
            batcher.submit([1] * 10, inbox.slot("large"), rows=10)
        assert batcher.queued_rows == 1
        engine.end(0)
        await engine.entered()
        engine.end(1)
        await inbox.wait(2)


async def test_a_request_larger_than_the_whole_queue_runs_when_the_queue_is_empty():
    async with large_batcher(echo, max_queue_rows=8) as batcher:
        assert await batcher(list(range(100)), rows=100) == list(range(100))


async def test_the_first_part_to_fail_fails_the_request_and_the_rest_leaves_the_queue():
    calls: list[list[int]] = []
    inbox = Inbox()

    async def engine(payloads: list[list[int]]) -> list[list[int]]:
        calls.extend(payloads)
        raise ValueError("first")

    async with large_batcher(engine) as batcher:
        batcher.submit(list(range(12)), inbox.slot("large"), rows=12)
        answer = (await inbox.wait(1))["large"]
        assert batcher.queued_rows == 0

    assert str(answer.error) == "ValueError: first"
    assert calls == [[0, 1, 2, 3]]


async def test_a_large_request_is_cancelled_as_one():
    engine, inbox = PuppetEngine(), Inbox()
    async with large_batcher(engine) as batcher:
        ticket = batcher.submit(list(range(12)), inbox.slot("large"), rows=12)
        await engine.entered()
        ticket.cancel()
        assert batcher.queued_rows == 0
        engine.end(0)

    assert inbox.answers == {}


async def test_a_join_that_fails_is_an_error_of_the_model():
    def failing(results: list[list[int]]) -> list[int]:
        raise ValueError("cannot join")

    async with Batcher(echo, policy=BatchPolicy(max_batch_size=1), split=split, join=failing) as batcher:
        with pytest.raises(ModelError, match="cannot join"):
            await batcher([1, 2], rows=2)


async def test_without_split_a_large_request_is_a_mistake_of_the_caller():
    async with Batcher(echo) as batcher:
        with pytest.raises(ValueError, match="no split was given"):
            batcher.submit([], lambda _: None, rows=33)
        with pytest.raises(ValueError, match="0 rows"):
            batcher.submit([], lambda _: None, rows=0)


async def test_a_split_that_loses_rows_is_found_out():
    async with Batcher(echo, split=lambda payload, rows: [(payload, 1)], join=lambda results: results[0]) as batcher:
        with pytest.raises(ValueError, match="the parts of 40 rows"):
            batcher.submit([], lambda _: None, rows=40)


@pytest.mark.parametrize("error", [RuntimeError("a bug of the caller"), asyncio.CancelledError()])
async def test_an_answer_callback_that_fails_costs_its_neighbours_nothing(error: BaseException):
    inbox, complaints = Inbox(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["exception"]))

    def failing(_: Any) -> None:
        raise error

    async with Batcher(echo) as batcher:
        batcher.submit("a", inbox.slot("a"))
        batcher.submit("b", failing)
        batcher.submit("c", inbox.slot("c"))
        await inbox.wait(2)

    assert complaints == [error]


async def test_a_batch_runs_in_the_context_of_none_of_its_requests():
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")

    async def engine(payloads: list[str]) -> list[str]:
        return [who.get() for _ in payloads]

    async with Batcher(engine) as batcher:
        who.set("somebody")
        assert await batcher("x") == "nobody"


async def test_the_observer_is_told_the_name_the_bound_and_the_depth():
    engine, observer = PuppetEngine(), RecordingObserver()
    policy = BatchPolicy(max_queue_rows=7)
    async with Batcher(engine, policy=policy, name="digits", version="3", observer=observer) as batcher:
        assert observer.watched == [("digits", "3", 7)]
        first = asyncio.create_task(batcher(1, rows=2))
        await engine.entered()
        second = asyncio.create_task(batcher(1, rows=3))
        await turns()
        assert await asyncio.to_thread(observer.depth) == 3
        engine.end(0)
        await engine.entered()
        engine.end(1)
        await asyncio.gather(first, second)
        assert observer.depth() == 0
        assert [(report.rows, report.why) for report in observer.reports] == [(2, "idle"), (3, "idle")]
        assert all(report.compute_s > 0 for report in observer.reports)
        assert not observer.is_closed

    assert observer.is_closed


async def test_the_observer_is_told_what_a_batch_is_padded_with():
    engine, observer = PuppetEngine(), RecordingObserver()
    policy = BatchPolicy(max_batch_size=8, batch_sizes=(1, 4, 8))
    async with Batcher(engine, policy=policy, observer=observer) as batcher:
        answers = [asyncio.ensure_future(batcher(index)) for index in range(3)]
        await engine.entered()
        engine.end(0)
        await asyncio.gather(*answers)
        await turns()
    assert [(report.rows, report.padded_rows) for report in observer.reports] == [(3, 1)]


async def test_an_observer_that_fails_fails_no_request_and_is_logged_once(caplog: pytest.LogCaptureFixture):
    class Broken(RecordingObserver):
        def record(self, report: Any) -> None:
            raise RuntimeError("no disk")

        def close(self) -> None:
            raise RuntimeError("no disk")

    async with Batcher(echo, observer=Broken()) as batcher:
        assert [await batcher(index) for index in range(3)] == [0, 1, 2]

    assert [record.message for record in caplog.records] == ["batch observer failed"]


async def test_an_observer_that_cannot_watch_is_done_without(caplog: pytest.LogCaptureFixture):
    class Blind(RecordingObserver):
        def watch(self, *_: Any) -> RecordingObserver:
            raise RuntimeError("no")

    async with Batcher(echo, observer=Blind()) as batcher:
        assert await batcher(1) == 1

    assert len(caplog.records) == 1


async def test_a_batcher_needs_functions_of_one_kind():
    async def coroutine(payloads: list[int]) -> list[int]:
        return payloads

    for wrong in ([], [echo, coroutine], 5, "echo"):
        with pytest.raises(ValueError, match="all plain or all async"):
            Batcher(wrong)
    with pytest.raises(ValueError, match="max_run_s"):
        Batcher(echo, max_run_s=0)


def test_a_batcher_needs_a_running_loop():
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="no running event loop"):
        Batcher(echo)
    assert threading.active_count() == before


async def test_an_object_with_an_async_call_is_awaited():
    class Engine:
        async def __call__(self, payloads: list[int]) -> list[int]:
            return payloads

    async with Batcher(Engine()) as batcher:
        assert await batcher(1) == 1


async def test_an_async_function_is_isolated_too():
    async def engine(payloads: list[int]) -> list[int]:
        await asyncio.sleep(0)
        if 2 in payloads:
            raise ValueError("two")
        return payloads

    async with Batcher(engine) as batcher:
        results = await asyncio.gather(*(batcher(index) for index in range(5)), return_exceptions=True)

    assert str(results.pop(2)) == "ValueError: two"
    assert results == [0, 1, 3, 4]


async def test_an_async_function_that_is_cancelled_from_within_fails_its_batch_only():
    async def engine(payloads: list[int]) -> list[int]:
        if 0 in payloads:
            raise asyncio.CancelledError
        return payloads

    async with Batcher(engine) as batcher:
        with pytest.raises(ModelError, match="CancelledError"):
            await batcher(0)
        assert await batcher(1) == 1
