"""Overload in virtual time: the real Batcher, an engine with a given service time, clients that know what they want.

`goodput(WORKLOADS["A"], 2.0, policy, seed=1)` sends at twice the capacity and says which share of it was answered in
time. All times are seconds of a virtual clock, so a cell is exact and repeatable.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from batching.virtual_time import run
from redserve.batching import Answer, Batcher, BatchPolicy
from redserve.batching.batch_queue import BatchQueue
from redserve.errors import RedserveError


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What arrives, and how long it takes.

    Attributes:
        service_s: Mean time of a batch, by its rows.
        max_batch_size: Rows.
        budgets_s: Each request brings one of these, as often as the others.
        noise: Standard deviation of a service time, of its mean.
        drift: From half time on, service takes so many times as long.
        is_seeded: The service times are measured beforehand.
        seeds_are: They come out so many times as long as they are.
        first_s: The first batch takes so much longer.
        rows: Of a request: from, to.
        groups: Requests of so many shapes, equally often.
        instances: Engines side by side.
        cancelled: Share of the clients that leave, at a random moment within their budget.
        poison: Share of the requests that make their batch fail.
        attempts: How often a client tries that is refused, expired or failed, each time with a new budget.
        burst_s: Arrivals come in bursts of this length at three times the rate, with pauses of twice the length.
        count: Requests.
    """

    service_s: Callable[[int], float]
    max_batch_size: int
    budgets_s: tuple[float, ...]
    noise: float = 0.05
    drift: float = 1.0
    is_seeded: bool = True
    seeds_are: float = 1.0
    first_s: float = 0.0
    rows: tuple[int, int] = (1, 1)
    groups: int = 1
    instances: int = 1
    cancelled: float = 0.0
    poison: float = 0.0
    attempts: int = 1
    burst_s: float = 0.0
    count: int = 10_000

    @property
    def capacity(self) -> float:
        """Rows per second of full batches, on average over the run."""
        full = self.instances * self.max_batch_size / self.service_s(self.max_batch_size)
        return full * (1 + 1 / self.drift) / 2


def linear(fixed_ms: float, row_ms: float) -> Callable[[int], float]:
    return lambda rows: (fixed_ms + row_ms * rows) / 1e3


def padded(fixed_ms: float, row_ms: float) -> Callable[[int], float]:
    """Batches are padded to a power of two."""
    return lambda rows: (fixed_ms + row_ms * 2 ** (rows - 1).bit_length()) / 1e3


A = Workload(service_s=linear(4, 0.2), max_batch_size=32, budgets_s=(0.050,))
B = Workload(service_s=linear(10, 0.5), max_batch_size=8, budgets_s=(0.050,))
C = replace(A, budgets_s=(0.020, 0.050, 0.200))
D = replace(A, noise=0.3)
F = Workload(service_s=linear(1, 1), max_batch_size=16, budgets_s=(0.040,))
KNOWN = {"A": A, "B": B, "C": C, "F": F, "C'": replace(C, noise=0.3), "D": D, "D'": replace(D, budgets_s=(0.025,))}
"""Of research on the choice of policies: steady, one row a request, one engine."""

UNSEEN = {
    "staircase": replace(A, service_s=padded(4, 0.2)),
    "steep staircase": replace(A, service_s=lambda rows: 0.002 + 0.003 * -(-rows // 8)),
    "drift": replace(A, drift=2.0),
    "cold start": replace(A, is_seeded=False, count=4_000),
    "slow first batch": replace(A, is_seeded=False, first_s=0.1),
    "seeds too short": replace(A, seeds_are=0.01),
    "seeds too long": replace(A, seeds_are=100.0),
    "rows 1-16": replace(A, rows=(1, 16)),
    "two groups": replace(A, groups=2),
    "cancels": replace(A, cancelled=0.1),
    "poison": replace(A, poison=0.01, count=40_000),  # whether a batch is hit is chance: more of them
    "retries": replace(A, attempts=3),
    "bursts": replace(A, burst_s=0.1),
    "two instances": replace(C, instances=2),
}
"""Shapes that no choice was made with."""


class PoisonError(Exception):
    """What a bad row makes of its batch."""


@dataclass(frozen=True)
class Plan:
    """What meets the overload.

    Attributes:
        numbers: Of the batcher.
        make_queue: Another queue in place of the real one.
        brings_deadlines: Whether requests are submitted with their deadlines.
    """

    numbers: BatchPolicy
    make_queue: Callable[[BatchPolicy], BatchQueue[Any]] | None = None
    brings_deadlines: bool = False


Policy = Callable[[Workload], Plan]


def goodput(workload: Workload, load: float, policy: Policy, *, seed: int) -> float:
    """Rows answered in time, in percent of the capacity."""
    return run(_serve(workload, load, policy, seed))


async def _serve(workload: Workload, load: float, policy: Policy, seed: int) -> float:
    loop = asyncio.get_running_loop()
    draw, noise, life = random.Random(seed), random.Random(seed + 1000), random.Random(seed + 2000)
    low, high = workload.rows
    per_s = load * workload.capacity / ((low + high) / 2)
    half_s = workload.count / per_s / 2
    in_time = 0
    batches: list[int] = []
    done = loop.create_future()
    plan = policy(workload)

    async def engine(payloads: list[tuple[int, bool]]) -> list[Any]:
        rows = sum(payload[0] for payload in payloads)
        seconds = workload.service_s(rows) * max(noise.gauss(1, workload.noise), 0.2)
        if loop.time() > half_s:
            seconds *= workload.drift
        if not batches:
            seconds += workload.first_s
        batches.append(rows)
        await asyncio.sleep(seconds)
        if workload.poison and any(payload[1] for payload in payloads):
            raise PoisonError
        return payloads

    seeds = {}
    if workload.is_seeded:
        sizes = [2**power for power in range(workload.max_batch_size.bit_length())]
        seeds = {rows: workload.seeds_are * workload.service_s(rows) for rows in sizes}
    batcher: Batcher[Any, Any] = Batcher(
        [engine] * workload.instances, policy=plan.numbers, max_run_s=None, service_times_s=seeds, clock=loop.time
    )
    if plan.make_queue is not None:
        dispatcher = batcher._dispatcher
        dispatcher._queue = dispatcher._admission._queue = plan.make_queue(plan.numbers)
        dispatcher._admission._check = lambda *_: None  # type: ignore[method-assign]

    def send(payload: tuple[int, bool], group: int, budget_s: float, attempts: int) -> None:
        nonlocal in_time
        due_s = loop.time() + budget_s

        def answered(answer: Answer[Any]) -> None:
            nonlocal in_time
            if answer.error is None:
                if loop.time() <= due_s and not done.done():
                    in_time += payload[0]
            else:
                again()

        def again() -> None:
            if attempts > 1:
                loop.call_later(life.uniform(0.02, 0.06), send, payload, group, budget_s, attempts - 1)

        try:
            ticket = batcher.submit(
                payload,
                answered,
                rows=payload[0],
                group=group,
                deadline_s=due_s if plan.brings_deadlines else float("inf"),
            )
        except RedserveError:
            again()
            return
        if workload.cancelled and life.random() < workload.cancelled:
            loop.call_later(life.uniform(0, budget_s), ticket.cancel)

    left = workload.count
    arrives_s = 0.0

    def arrive() -> None:
        nonlocal left, arrives_s
        rows = low if low == high else draw.randint(low, high)
        send(
            (rows, draw.random() < workload.poison),
            draw.randrange(workload.groups) if workload.groups > 1 else 0,
            draw.choice(workload.budgets_s),
            workload.attempts,
        )
        left -= 1
        if left == 0:
            done.set_result(None)
            return
        if workload.burst_s:
            arrives_s += draw.expovariate(3 * per_s)
            period_s = 3 * workload.burst_s
            if arrives_s % period_s > workload.burst_s:
                arrives_s += period_s - arrives_s % period_s
        else:
            arrives_s += draw.expovariate(per_s)
        loop.call_at(arrives_s, arrive)

    arrive()
    await done
    sent_s = loop.time()
    await asyncio.sleep(2 * max(workload.budgets_s))
    await batcher.aclose()
    return 100 * in_time / (workload.capacity * sent_s)


def slo(workload: Workload) -> Plan:
    """redserve's own: each request brings its deadline."""
    numbers = BatchPolicy(
        max_batch_size=workload.max_batch_size, max_queue_rows=100_000, slo_s=max(workload.budgets_s), linger=False
    )
    return Plan(numbers, brings_deadlines=True)


def fifo(workload: Workload) -> Plan:
    """Everything waits until it has run."""
    return Plan(BatchPolicy(max_batch_size=workload.max_batch_size, max_queue_rows=10**9, linger=False))
