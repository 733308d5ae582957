"""The gate alone, and what it does to closed and open loops in front of the real dispatcher."""

import random
import statistics

import pytest

from batching.simulated_threads import World
from redserve.batching.batch_queue import Waiting
from redserve.batching.linger import FixedCost, LingerGate
from redserve.batching.policy import BatchPolicy

MAX_BATCH_SIZE = 32


def service_s(rows: int) -> float:
    return 0.004 + 0.0002 * rows


CAPACITY = MAX_BATCH_SIZE / service_s(MAX_BATCH_SIZE)


def gate_after(batches: int, *, returning: int, seconds: float = 0.005) -> LingerGate:
    """A gate that has seen batches of 5 ms, each followed by `returning` arrivals at once."""
    gate = LingerGate()
    for index in range(batches):
        now_s = float(index)
        gate.completed(rows=2, seconds=seconds, now_s=now_s)
        for _ in range(returning):
            gate.arrived(now_s=now_s + 0.0001)
    gate.completed(rows=2, seconds=seconds, now_s=float(batches))
    return gate


def test_a_gate_that_knows_nothing_does_not_linger():
    gate = LingerGate()
    gate.completed(rows=1, seconds=0.005, now_s=0.0)

    assert gate.linger_s(answered=4, waiting=4) == 0.0


def test_it_lingers_a_tenth_of_the_fixed_cost_when_clients_come_straight_back():
    assert gate_after(20, returning=4, seconds=0.004).linger_s(answered=4, waiting=4) == pytest.approx(0.0004)


def test_it_never_lingers_longer_than_half_a_millisecond():
    assert gate_after(20, returning=4, seconds=1.0).linger_s(answered=4, waiting=4) == 0.0005


def test_it_does_not_linger_where_nobody_came_back():
    assert gate_after(20, returning=0).linger_s(answered=4, waiting=4) == 0.0


def test_many_who_wait_outweigh_few_who_come_back():
    gate = gate_after(20, returning=1)

    assert gate.linger_s(answered=2, waiting=2) > 0
    assert gate.linger_s(answered=2, waiting=8) == 0.0


def test_a_lone_client_has_nobody_to_wait_for():
    assert gate_after(20, returning=1).linger_s(answered=1, waiting=0) == 0.0


def test_arrivals_after_the_window_do_not_count():
    gate = LingerGate()
    for index in range(20):
        gate.completed(rows=2, seconds=0.005, now_s=float(index))
        gate.arrived(now_s=index + 0.0006)

    assert gate.linger_s(answered=2, waiting=1) == 0.0


def test_the_fixed_cost_is_read_off_batches_of_different_sizes():
    cost = FixedCost()
    for rows in (1, 8, 32, 4, 16):
        cost.observe(rows=rows, seconds=0.004 + 0.0002 * rows)

    assert cost.estimate_s() == pytest.approx(0.004)


def test_the_fixed_cost_is_bounded_by_what_batches_took():
    growing, shrinking, unknown = FixedCost(), FixedCost(), FixedCost()
    for rows in (1, 2, 4, 8):
        growing.observe(rows=rows, seconds=rows**2)
        shrinking.observe(rows=rows, seconds=1.0 / rows)

    assert growing.estimate_s() == 0.0
    assert shrinking.estimate_s() == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 8) / 4, rel=0.05)
    assert unknown.estimate_s() == 0.0


def test_batches_of_one_size_say_nothing_of_rows():
    cost = FixedCost()
    for _ in range(5):
        cost.observe(rows=4, seconds=0.003)

    assert cost.estimate_s() == pytest.approx(0.003)


def test_the_fixed_cost_forgets():
    cost = FixedCost()
    for fixed_s in (0.004, 0.001):
        for _ in range(400):
            for rows in (1, 16):
                cost.observe(rows=rows, seconds=fixed_s + 0.0001 * rows)

    assert cost.estimate_s() == pytest.approx(0.001, rel=0.01)


def closed_loop(clients: int, *, linger: bool) -> float:
    """Answers per second for clients that are back after 0.3 ms, give or take."""
    draw = random.Random(7)
    world = World(BatchPolicy(linger=linger), lambda rows: service_s(rows) * draw.uniform(0.98, 1.02))

    def back(_: Waiting) -> None:
        world.at(world.now_s + max(0.0, draw.gauss(0.0003, 0.00005)), world.submit)

    world.answered = back
    for _ in range(clients):
        world.at(draw.uniform(0, 0.005), world.submit)
    world.run(5.0)
    return len(world.latencies_s) / 5.0


@pytest.mark.parametrize("clients", [2, 4, 16, 32])
def test_clients_that_come_straight_back_are_served_in_one_batch_and_not_in_halves(clients: int):
    assert closed_loop(clients, linger=True) >= 1.15 * closed_loop(clients, linger=False)


@pytest.mark.parametrize("clients", [1, 64])
def test_it_costs_nothing_where_there_is_nothing_to_merge(clients: int):
    assert closed_loop(clients, linger=True) >= 0.995 * closed_loop(clients, linger=False)


def open_loop(load: float, *, linger: bool, seed: int) -> float:
    """Mean latency at Poisson arrivals of `load` times the capacity."""
    draw, noise = random.Random(seed), random.Random(seed + 1)
    world = World(BatchPolicy(linger=linger), lambda rows: service_s(rows) * noise.uniform(0.95, 1.05))

    def arrive() -> None:
        world.submit()
        world.at(world.now_s + draw.expovariate(load * CAPACITY), arrive)

    world.at(0.0, arrive)
    world.run(10_000 / (load * CAPACITY))
    return statistics.mean(world.latencies_s)


@pytest.mark.parametrize("load", [0.02, 0.1, 0.3, 0.6, 0.9])
def test_strangers_pay_at_most_half_a_percent_for_it(load: float):
    greedy = sum(open_loop(load, linger=False, seed=seed) for seed in range(2))

    assert sum(open_loop(load, linger=True, seed=seed) for seed in range(2)) <= 1.005 * greedy
