"""Batches that run on the loop let others that wait for its core run first."""

import asyncio
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
        self.given = 0
        self.clock = FakeClock()
        self.patience = GiveWay(lambda: self.rows, lambda: self.can_wait, clock=self.clock, give_way=self._give_way)

    def _give_way(self) -> None:
        self.given += 1
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


def test_nobody_waits_who_has_a_full_batch_or_no_time():
    core = Core()
    core.can_wait = False
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


def test_it_rests_a_hundred_times_as_long_as_somebody_else_took():
    core = Core(takes_s=0.004)
    assert core.gives_way()
    core.clock.now_s += 0.399
    assert not core.gives_way()
    core.clock.now_s += 0.002
    assert core.gives_way()


async def test_who_comes_in_the_turn_after_giving_way_is_in_the_same_flush():
    core, came, flushed = Core(), ["first"], list[list[str]]()
    loop = asyncio.get_running_loop()
    flushing = Turns(loop, lambda: flushed.append(came.copy()), patience=core.patience)

    flushing.arm()
    await asyncio.sleep(0)
    assert core.given == 1
    assert not flushed
    came.append("second")
    flushing.arm()
    await asyncio.sleep(0)

    assert flushed == [["first", "second"]]
    await asyncio.sleep(0)
    assert len(flushed) == 1


@pytest.mark.parametrize(("linger", "calls"), [(True, [["a", "b", "c"]]), (False, [["a", "b"], ["c"]])])
async def test_a_batch_on_the_loop_waits_one_turn_for_company_unless_the_policy_says_it_does_not(linger, calls):
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
