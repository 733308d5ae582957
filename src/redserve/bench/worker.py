"""One sending process: takes a load and orders from a pipe, and tells what it sees (`redserve.bench.orders`).

It draws nothing and computes no percentile while it sends.
"""

import asyncio
import gc
import signal
import sys
from multiprocessing.connection import Connection

import uvloop

from redserve.bench.load import Load
from redserve.bench.orders import Go, Progress, Ready, Refused, Stop
from redserve.bench.recorder import TallyRecorder
from redserve.bench.sender import Sender

PROGRESS_S = 0.25
_JUDGED_S = 1.0
_FEWEST_TO_JUDGE = 20


class Reporting:
    """What a worker does every tick: tells its parent, and breaks off a run in which too much fails."""

    def __init__(self, sender: Sender, recorder: TallyRecorder, pipe: Connection, *, max_failed_ratio: float) -> None:
        self._sender = sender
        self._recorder = recorder
        self._pipe = pipe
        self._max_failed_ratio = max_failed_ratio
        self._told_s = self._judged_s = 0.0
        self._told = self._judged = (0, 0)

    def tick(self, now_s: float) -> None:
        """See `Sender.run`."""
        ok, failed = now = self._recorder.ok, self._recorder.failed
        if now_s - self._told_s >= PROGRESS_S:
            fresh = self._recorder.take_fresh()
            self._pipe.send(Progress(ok - self._told[0], failed - self._told[1], fresh))
            self._told_s, self._told = now_s, now
        if now_s - self._judged_s >= _JUDGED_S:
            new_ok, new_failed = ok - self._judged[0], failed - self._judged[1]
            if is_too_much(new_ok, new_failed, self._max_failed_ratio):
                self._sender.stop(f"{new_failed:,} of {new_ok + new_failed:,} requests failed within a second")
            self._judged_s, self._judged = now_s, now


def is_too_much(ok: int, failed: int, max_failed_ratio: float) -> bool:
    """Whether a run in which so many were answered and so many failed is to be broken off."""
    return failed >= _FEWEST_TO_JUDGE and failed > max_failed_ratio * (ok + failed)


async def _work(pipe: Connection) -> None:
    load: Load = pipe.recv()
    sender = Sender(load, TallyRecorder(duration_s=1.0))
    try:
        await sender.connect()
    except OSError as error:
        pipe.send(Refused(str(error)))
        return
    pipe.send(Ready())
    orders: asyncio.Queue[Go | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    loop.add_reader(pipe.fileno(), lambda: _take_order(pipe, sender, orders))
    while (order := await orders.get()) is not None:
        recorder = TallyRecorder(duration_s=order.duration_s)
        reporting = Reporting(sender, recorder, pipe, max_failed_ratio=load.max_failed_ratio)
        gc.collect()
        gc.disable()  # a full collection would be a pause of milliseconds
        await sender.run(
            duration_s=order.duration_s, start_at_s=order.start_at_s, recorder=recorder, on_tick=reporting.tick
        )
        gc.enable()
        pipe.send(recorder.tally(sender))
    await sender.close()


def _take_order(pipe: Connection, sender: Sender, orders: "asyncio.Queue[Go | None]") -> None:
    try:
        order = pipe.recv()
    except (EOFError, OSError):  # the parent is done, or gone
        asyncio.get_running_loop().remove_reader(pipe.fileno())
        sender.stop("the parent is gone")
        orders.put_nowait(None)
        return
    if isinstance(order, Stop):
        sender.stop(order.because)
    else:
        orders.put_nowait(order)


def main() -> None:
    """`python -m redserve.bench.worker FD`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent has it too, and says stop
    with Connection(int(sys.argv[1])) as pipe:
        uvloop.run(_work(pipe))


if __name__ == "__main__":
    main()
