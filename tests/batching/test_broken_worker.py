"""A fault inside of the batcher, which must not leave anybody waiting."""

import threading
from typing import Any

import pytest

from redserve.batching import Batcher
from redserve.errors import ShuttingDown


class HostileGroup:
    """Is hashed on the loop, and nowhere else."""

    def __hash__(self) -> int:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("not here")
        return 1


async def test_when_a_worker_dies_those_who_wait_are_answered_and_those_who_come_are_refused(caplog):
    batcher: Batcher[Any, Any] = Batcher(list)

    with pytest.raises(ShuttingDown):
        await batcher(1, group=HostileGroup())

    assert batcher.is_stalled
    assert [record.exc_info[1].args for record in caplog.records if record.exc_info] == [("not here",)]
    with pytest.raises(ShuttingDown):
        await batcher(2)
    await batcher.aclose()
