"""Batches that run on the loop let others that wait for its core run first."""

import asyncio
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from batching.fakes import FakeClock, Inbox
from redserve.batching import Batcher, BatchPolicy
from redserve.batching.patience import GiveWay
from redserve.batching.turns import Turns


class Core:
    """Shared with somebody who takes it for `takes_s` whenever it is given up."""

    def __init__(self, *, rows: int = 2, takes_s: float = 0.0) -> None:
        self.rows = rows
        self.takes_s = takes_s
        self.brings = 0
        self.can_wait = True
        self.error: Exception | None = None
        self.on_given: Callable[[], object] = lambda: None
        self.given = 0
        self.clock = FakeClock()
        self.patience = GiveWay(lambda: self.rows, lambda: self.can_wait, clock=self.clock, give_way=self._give_way)

    def _give_way(self) -> None:
        if self.error is not None:
            raise self.error
        self.given += 1
        self.on_given()
        self.rows += self.brings
        self.clock.now_s += self.takes_s

    def gives_way(self) -> bool:
        """Whether it does so for the next batch."""
        before = self.given
        self.patience.begin()
        while self.patience.one_more(has_come=False):
            pass
        assert self.given <= before + 1
        return self.given > before


def test_it_gives_way_once_for_a_batch_whoever_comes_meanwhile():
    core = Core()
    assert [core.gives_way() for _ in range(3)] == [True, True, True]
    assert core.given == 3


def test_a_lone_client_waits_for_nobody():
    core = Core(rows=1)
    assert not core.gives_way()
    core.rows = 2
    assert core.gives_way()
    core.rows = 1
    assert core.gives_way()  # the other may be about to come back
    assert not core.gives_way()


def test_it_does_not_where_a_batch_is_full_or_late_or_none_is_left():
    core = Core()
    core.can_wait = False
    assert not core.gives_way()
    core.can_wait, core.rows = True, 0
    assert not core.gives_way()


def test_it_gives_up_where_that_is_forbidden():
    core = Core()
    core.error = PermissionError()
    assert not core.gives_way()
    core.error = None
    core.clock.now_s += 1e9
    assert not core.gives_way()


@pytest.mark.parametrize(
    ("takes_s", "brings"),
    [(0.0009, 0), (0.004, 100)],
    ids=["short", "long, and worth it"],
)
def test_it_goes_on_where_others_are_short_or_bring_rows(takes_s: float, brings: int):
    core = Core(takes_s=takes_s)
    core.brings = brings
    assert core.gives_way()
    assert core.gives_way()


@pytest.mark.parametrize("rows", [2, 127])
def test_it_rests_a_hundred_times_as_long_as_somebody_else_took(rows: int):
    core = Core(rows=rows, takes_s=0.004)
    assert core.gives_way()
    core.clock.now_s += 0.399
    assert not core.gives_way()
    core.clock.now_s += 0.002
    assert core.gives_way()


@pytest.mark.parametrize("loops", ["asyncio", "uvloop"])
def test_who_comes_meanwhile_over_a_socket_and_by_a_task_is_in_the_same_flush(loops: str):
    """As under an ASGI server: what a socket brings starts a task, and that submits."""

    async def main() -> None:
        loop, core, came, flushed = asyncio.get_running_loop(), Core(), ["first"], list[list[str]]()
        ours, theirs = socket.socketpair()
        for each in (ours, theirs):
            each.setblocking(False)
        core.on_given = partial(theirs.send, b"second")
        flushing = Turns(loop, lambda: flushed.append(came.copy()), patience=core.patience)

        async def submit(name: str) -> None:
            came.append(name)
            flushing.arm()

        loop.add_reader(ours, lambda: tasks.append(loop.create_task(submit(ours.recv(100).decode()))))
        tasks: list[asyncio.Task[None]] = []
        flushing.arm()
        for _ in range(8):
            await asyncio.sleep(0)
        loop.remove_reader(ours)
        ours.close()
        theirs.close()

        assert flushed == [["first", "second"]]
        assert core.given == 1

    with asyncio.Runner(loop_factory=pytest.importorskip(loops).new_event_loop) as runner:
        runner.run(main())


async def test_a_mistake_in_the_clock_leaves_nobody_waiting_for_ever():
    core, flushed = Core(), list[str]()
    loop = asyncio.get_running_loop()
    errors = list[dict[str, Any]]()
    loop.set_exception_handler(lambda loop, context: errors.append(context))
    flushing = Turns(loop, lambda: flushed.append("flush"), patience=core.patience)
    core.error = ZeroDivisionError()

    flushing.arm()
    await asyncio.sleep(0)
    core.error = None
    flushing.arm()
    for _ in range(4):
        await asyncio.sleep(0)

    assert [type(each["exception"]) for each in errors] == [ZeroDivisionError]
    assert flushed == ["flush"]


@pytest.mark.parametrize(("linger", "calls"), [(True, [["a", "b", "c"]]), (False, [["a", "b"], ["c"]])])
async def test_a_batch_on_the_loop_waits_some_turns_for_company_unless_the_policy_says_it_does_not(linger, calls):
    made, inbox = list[list[Any]](), Inbox()

    def echo(payloads: list[Any]) -> list[Any]:
        made.append(payloads)
        return payloads

    async with Batcher(echo, inline_below_s=1.0, policy=BatchPolicy(linger=linger)) as batcher:
        for key in ("a", "b"):
            batcher.submit(key, inbox.slot(key))
        await asyncio.sleep(0)
        batcher.submit("c", inbox.slot("c"))
        await inbox.wait(3)

    assert made == calls


async def test_a_thread_that_has_taken_over_gives_no_way(monkeypatch):
    clock, given, takes_s = FakeClock(), list[str](), 0.0
    monkeypatch.setattr(os, "sched_yield", lambda: given.append("way"))

    def echo(payloads: list[Any]) -> list[Any]:
        clock.now_s += takes_s
        return payloads

    async with Batcher(echo, inline_below_s=1e-6, clock=clock) as batcher:
        await asyncio.gather(batcher("a"), batcher("b"))
        assert given == ["way"]
        takes_s = 1.0
        while batcher.is_inline:
            await batcher("grown")
        given.clear()
        await asyncio.gather(batcher("a"), batcher("b"))

    assert not given
