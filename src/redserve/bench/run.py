"""One load in this process, from connecting to the tally."""

import gc

import uvloop

from redserve.bench.load import Load
from redserve.bench.recorder import TallyRecorder
from redserve.bench.sender import Sender
from redserve.bench.tally import Tally


def run_load(load: Load, *, warm_up_s: float = 0.0) -> Tally:
    """Send `load` and say what came of it; what the warm-up before it sends is not in the tally.

    Raises:
        OSError: The server takes no connections.
    """
    return uvloop.run(_run(load, warm_up_s))


async def _run(load: Load, warm_up_s: float) -> Tally:
    recorder = TallyRecorder(duration_s=load.duration_s)
    sender = Sender(load, TallyRecorder(duration_s=max(warm_up_s, 1.0)))
    await sender.connect()
    gc.collect()
    gc.disable()  # nothing here makes cycles; a full collection would be a pause of milliseconds
    try:
        if warm_up_s:
            await sender.run(duration_s=warm_up_s)
        await sender.run(recorder=recorder)
    finally:
        gc.enable()
        await sender.close()
    return recorder.tally(sender)
