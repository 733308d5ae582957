import asyncio
import inspect
import threading
from typing import Any

import pytest

from batching.fakes import PuppetEngine, RecordingObserver, turns
from redserve.batching import batched
from redserve.errors import ModelError, QueueFull, RunTimeout, ShuttingDown


async def test_a_plain_function_is_called_with_what_came_together():
    calls: list[list[int]] = []

    @batched
    def double(numbers: list[int]) -> list[int]:
        calls.append(numbers)
        return [number * 2 for number in numbers]

    assert await asyncio.gather(*(double(index) for index in range(5))) == [0, 2, 4, 6, 8]
    assert calls == [[0, 1, 2, 3, 4]]
    await double.aclose()


async def test_an_async_function_is_awaited_on_the_loop():
    @batched(max_batch_size=2)
    async def double(numbers: list[int]) -> list[int]:
        assert threading.current_thread() is threading.main_thread()
        await asyncio.sleep(0)
        return [number * 2 for number in numbers]

    assert await asyncio.gather(*(double(index) for index in range(5))) == [0, 2, 4, 6, 8]
    await double.aclose()


def test_it_keeps_the_name_and_the_words_of_the_function():
    @batched(name="other")
    def embed(texts: list[str]) -> list[int]:
        """Make vectors."""
        return [len(text) for text in texts]

    assert (embed.__name__, embed.__doc__) == ("embed", "Make vectors.")
    assert embed.__wrapped__(["ab"]) == [2]  # type: ignore[attr-defined]
    assert inspect.iscoroutinefunction(type(embed).__call__)


async def test_its_name_is_the_label_of_its_metrics():
    observers = [RecordingObserver(), RecordingObserver()]
    first = batched(name="embed", observer=observers[0], max_queue_rows=9)(lambda texts: texts)

    @batched(observer=observers[1])
    def by_its_own_name(texts: list[str]) -> list[str]:
        return texts

    await asyncio.gather(first("a"), by_its_own_name("b"))
    assert [observer.watched for observer in observers] == [[("embed", "", 9)], [("by_its_own_name", "", 1024)]]
    assert observers[0].reports[0].rows == 1
    await asyncio.gather(first.aclose(), by_its_own_name.aclose())
    assert observers[0].is_closed


async def test_only_the_item_at_fault_fails():
    @batched
    def invert(numbers: list[int]) -> list[float]:
        return [1 / number for number in numbers]

    results = await asyncio.gather(*(invert(number) for number in (1, 0, 2)), return_exceptions=True)

    assert (results[0], results[2]) == (1.0, 0.5)
    assert isinstance(results[1], ModelError)
    assert isinstance(results[1].__cause__, ZeroDivisionError)
    await invert.aclose()


async def test_a_function_that_hangs_fails_its_callers():
    engine = PuppetEngine()
    hangs = batched(max_run_s=0.01, name="hangs")(engine)

    with pytest.raises(RunTimeout):
        await hangs(1)
    engine.end(0)
    await hangs.aclose()


async def test_too_much_is_turned_away():
    engine = PuppetEngine()
    busy = batched(max_queue_rows=1)(engine)
    first = asyncio.create_task(busy(1))
    await engine.entered()
    second = asyncio.create_task(busy(2))
    await turns()

    with pytest.raises(QueueFull):
        await busy(3)
    engine.end(0)
    await engine.entered()
    engine.end(1)
    assert await asyncio.gather(first, second) == [1, 2]
    await busy.aclose()


async def test_closing_drains_refuses_meanwhile_and_a_later_call_starts_anew():
    engine = PuppetEngine()
    function = batched(engine)
    await function.aclose()  # never used
    call = asyncio.create_task(function(1))
    await engine.entered()
    closing = asyncio.create_task(function.aclose())
    await turns()
    with pytest.raises(ShuttingDown):
        await function(2)
    engine.end(0)
    await closing
    assert await call == 1

    again = asyncio.create_task(function(3))
    await engine.entered()
    engine.end(1)
    assert await again == 3
    await function.aclose(grace_s=5)


def test_it_binds_anew_when_its_loop_is_closed():
    observer = RecordingObserver()
    threads: set[threading.Thread] = set()

    @batched(observer=observer)
    def double(numbers: list[int]) -> list[int]:
        threads.add(threading.current_thread())
        return [number * 2 for number in numbers]

    async def use(number: int) -> int:
        observer.is_closed = False
        return await double(number)

    assert asyncio.run(use(1)) == 2
    assert asyncio.run(use(2)) == 4
    asyncio.run(double.aclose())
    for thread in threads:
        thread.join(20)

    assert len(threads) == 2
    assert not any(thread.is_alive() for thread in threads)
    assert len(observer.watched) == 2


async def test_a_second_loop_that_lives_is_told_so():
    @batched
    def double(numbers: list[int]) -> list[int]:
        return numbers

    await double(1)

    def in_another_loop(method: Any) -> None:
        with pytest.raises(RuntimeError, match="double is in use in another event loop"):
            asyncio.run(method())

    await asyncio.to_thread(in_another_loop, lambda: double(2))
    await asyncio.to_thread(in_another_loop, double.aclose)
    assert await double(3) == 3
    await double.aclose()


def test_a_method_is_refused_where_it_is_decorated():
    with pytest.raises(TypeError, match=r"batched\(self.method\)"):

        class Model:
            @batched
            def embed(self, texts: list[str]) -> list[str]:
                return texts


async def test_a_bound_method_and_a_builtin_are_fine():
    class Model:
        def embed(self, texts: list[str]) -> list[str]:
            return [text.upper() for text in texts]

    embed, plain = batched(Model().embed), batched(list)

    assert await asyncio.gather(embed("a"), plain("b")) == ["A", "b"]
    await asyncio.gather(embed.aclose(), plain.aclose())


def test_wrong_numbers_fail_at_the_decorator():
    with pytest.raises(ValueError, match="max_batch_size"):
        batched(max_batch_size=0)
