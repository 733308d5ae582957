"""The real Batcher in virtual time: what runs when, to the microsecond."""

import asyncio
import random
import statistics
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest

from batching.fakes import Inbox, RecordingObserver
from batching.virtual_time import run
from redserve.batching import Answer, Batcher, BatchPolicy


class TimedEngine:
    """An async function that takes `service_s(rows)` and notes when it ran what."""

    def __init__(self, service_s: Callable[[int], float]) -> None:
        self.runs: list[tuple[float, float, list[Any]]] = []  # began, ended, payloads
        self._service_s = service_s

    async def __call__(self, payloads: list[Any]) -> list[Any]:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await asyncio.sleep(self._service_s(len(payloads)))
        self.runs.append((began_s, loop.time(), payloads))
        return payloads


def timed_batcher(engine: Any, **policy: Any) -> Batcher[Any, Any]:
    return Batcher(
        engine, policy=BatchPolicy(**policy), max_run_s=None, clock=asyncio.get_running_loop().time, name="timed"
    )


async def at(when_s: float, do: Callable[[], Any]) -> None:
    await asyncio.sleep(when_s - asyncio.get_running_loop().time())
    do()


def test_hand_case_the_second_batch_is_what_came_while_the_first_ran():
    engine = TimedEngine(lambda rows: 0.010)

    async def main() -> dict[str, Answer[str]]:
        inbox = Inbox()
        async with timed_batcher(engine, max_batch_size=3) as batcher:
            for when_s, key in [(0.0, "a"), (0.001, "b"), (0.004, "c"), (0.009, "d"), (0.0095, "e"), (0.05, "f")]:
                await at(when_s, lambda key=key: batcher.submit(key, inbox.slot(key)))
        return inbox.answers

    answers = run(main())

    assert [(round(began, 6), payloads) for began, _, payloads in engine.runs] == [
        (0.0, ["a"]),
        (0.010, ["b", "c", "d"]),
        (0.020, ["e"]),
        (0.05, ["f"]),
    ]
    assert answers["c"].queue_s == pytest.approx(0.006)
    assert answers["c"].compute_s == pytest.approx(0.010)
    assert answers["c"].batch_rows == 3


def test_what_one_turn_of_the_loop_brings_is_one_batch():
    engine = TimedEngine(lambda rows: 0.001)

    async def main() -> None:
        async with timed_batcher(engine) as batcher:
            assert await asyncio.gather(*(batcher(i) for i in range(10))) == list(range(10))

    run(main())

    assert [payloads for _, _, payloads in engine.runs] == [list(range(10))]


def test_a_delay_counts_from_the_oldest_arrival_and_a_full_batch_ends_it():
    engine = TimedEngine(lambda rows: 0.001)
    observer = RecordingObserver()

    async def main() -> None:
        policy = BatchPolicy(max_batch_size=3, max_queue_delay_s=0.005)
        clock = asyncio.get_running_loop().time
        async with Batcher(engine, policy=policy, observer=observer, clock=clock) as batcher:
            for when_s in (0.0, 0.004, 0.1, 0.101, 0.102):
                await at(when_s, lambda: batcher.submit(0, lambda _: None))
            await asyncio.sleep(0.1)

    run(main())

    assert [(round(began, 6), len(payloads)) for began, _, payloads in engine.runs] == [(0.005, 2), (0.102, 3)]
    assert [report.why for report in observer.reports] == ["delay", "full"]
    assert observer.reports[0].waits_s == pytest.approx([0.005, 0.001])


def test_closing_ends_a_delay():
    engine = TimedEngine(lambda rows: 0.001)

    async def main() -> float:
        batcher = timed_batcher(engine, max_queue_delay_s=3600.0)
        waiting = asyncio.create_task(batcher(1))
        await asyncio.sleep(0.01)
        await batcher.aclose()
        await waiting
        return asyncio.get_running_loop().time()

    assert run(main()) < 0.02


def test_the_last_of_a_delayed_batch_may_leave():
    engine = TimedEngine(lambda rows: 0.001)

    async def main() -> None:
        async with timed_batcher(engine, max_queue_delay_s=0.005) as batcher:
            gone = batcher.submit("gone", lambda _: None)
            await asyncio.sleep(0.002)
            gone.cancel()
            await at(0.003, lambda: batcher.submit("stays", lambda _: None))
            await asyncio.sleep(0.1)

    run(main())

    assert [(round(began, 6), payloads) for began, _, payloads in engine.runs] == [(0.008, ["stays"])]


def test_instances_run_side_by_side():
    engines = [TimedEngine(lambda rows: 0.010) for _ in range(2)]

    async def main() -> None:
        async with timed_batcher(engines, max_batch_size=2) as batcher:
            await asyncio.gather(*(batcher(i) for i in range(8)))

    run(main())

    runs = sorted((began, payloads) for engine in engines for began, _, payloads in engine.runs)
    assert [(round(began, 6), payloads) for began, payloads in runs] == [
        (0.0, [0, 1]),
        (0.0, [2, 3]),
        (0.01, [4, 5]),
        (0.01, [6, 7]),
    ]


def test_groups_queued_together_find_both_instances():
    engines = [TimedEngine(lambda rows: 0.010) for _ in range(2)]

    async def main() -> None:
        async with timed_batcher(engines) as batcher:
            await asyncio.gather(batcher("a", group=1), batcher("b", group=2))

    run(main())

    assert {engine.runs[0][0] for engine in engines} == {0.0}


@pytest.mark.parametrize("instances", [1, 3])
def test_no_engine_is_idle_while_work_is_queued(instances: int):
    engines = [TimedEngine(lambda rows: 0.003 + 0.001 * rows) for _ in range(instances)]
    draw = random.Random(instances)
    arrivals = sorted(draw.uniform(0, 1000 / (200 * instances)) for _ in range(1000))
    answers = Inbox()

    async def main() -> None:
        async with timed_batcher(engines, max_batch_size=4, max_queue_rows=10_000) as batcher:
            for index, when_s in enumerate(arrivals):
                await at(when_s, lambda index=index: batcher.submit(index, answers.slot(index), group=index % 3))

    run(main())

    taken_s = [arrived_s + answers.answers[index].queue_s for index, arrived_s in enumerate(arrivals)]
    waits = [(arrived_s, taken) for arrived_s, taken in zip(arrivals, taken_s, strict=True) if taken > arrived_s + 1e-6]
    rests = [
        (ended_s, began_s)
        for engine in engines
        for (_, ended_s, _), (began_s, _, _) in pairwise([(0.0, 0.0, []), *engine.runs])
        if began_s > ended_s + 1e-6
    ]
    assert len(waits) > 100
    assert len(rests) > 100
    assert not [
        (wait, rest) for wait in waits for rest in rests if wait[0] < rest[1] - 1e-6 and wait[1] > rest[0] + 1e-6
    ]


def test_nobody_is_overtaken_within_a_group():
    engine = TimedEngine(lambda rows: 0.002)
    draw = random.Random(4)

    async def main() -> None:
        async with timed_batcher(engine, max_batch_size=4, max_queue_rows=10_000) as batcher:
            for index in range(1000):
                await asyncio.sleep(draw.expovariate(1000))
                group = draw.randrange(3)
                ticket = batcher.submit((group, index), lambda _: None, group=group, rows=draw.randint(1, 4))
                if draw.random() < 0.1:
                    ticket.cancel()

    run(main())

    for group in range(3):
        order = [index for _, _, payloads in engine.runs for g, index in payloads if g == group]
        assert order == sorted(order)
        assert len(order) > 100
    assert all(len({group for group, _ in payloads}) == 1 for _, _, payloads in engine.runs)


def mean_latency_s(arrivals: list[float], delay_s: float) -> float:
    """Of one row a request, one instance, 4 ms + 0.2 ms a row with 5 % noise."""
    noise = random.Random(11)

    async def engine(payloads: list[float]) -> list[float]:
        await asyncio.sleep((0.004 + 0.0002 * len(payloads)) * noise.uniform(0.95, 1.05))
        return payloads

    async def main() -> float:
        loop = asyncio.get_running_loop()
        latencies_s: list[float] = []
        batcher = timed_batcher(engine, max_queue_delay_s=delay_s, max_queue_rows=10**6)

        def send(arrived_s: float) -> None:
            batcher.submit(arrived_s, lambda _: latencies_s.append(loop.time() - arrived_s))

        for arrived_s in arrivals:
            loop.call_at(arrived_s, send, arrived_s)
        await asyncio.sleep(arrivals[-1])
        await batcher.aclose()
        return statistics.mean(latencies_s)

    return run(main())


@pytest.mark.parametrize("load", [0.1, 0.3, 0.5, 0.7, 0.9, 0.95])
def test_greedy_is_within_one_percent_of_the_best_fixed_delay_or_better(load: float):
    capacity = 32 / (0.004 + 0.0002 * 32)
    greedy, fixed = 0.0, dict.fromkeys((0.0005, 0.001, 0.002, 0.005), 0.0)
    for seed in range(2):
        draw, arrivals, now_s = random.Random(seed), [], 0.0
        for _ in range(2500):
            now_s += draw.expovariate(load * capacity)
            arrivals.append(now_s)
        greedy += mean_latency_s(arrivals, 0.0)
        for delay_s in fixed:
            fixed[delay_s] += mean_latency_s(arrivals, delay_s)

    assert greedy <= 1.01 * min(fixed.values())


async def test_the_virtual_clock_says_when_everybody_waits_for_ever():
    def deadlock() -> None:
        async def main() -> Awaitable[None]:
            return await asyncio.get_running_loop().create_future()

        run(main())

    loop = asyncio.get_running_loop()
    with pytest.raises(RuntimeError, match="everybody waits"):
        await loop.run_in_executor(None, deadlock)
