"""The load tester behind `redserve bench`: for our server, for any other, and for the benchmarks of this project.

    options ─ prepare: ask the server for its model, make requests, try one
                 │
    arrivals ─ Pacer ─ Sender ─ Connection ──> server          one process, or several that share a plan
                          └─ TallyRecorder ─ Tally ─┐
    /metrics before and after ─ Witness ────────────┴─ Run ─ Result ─> text, JSON, HTML

What decides (arrivals, pacer, sweep, verdict, comparison, truth) is pure and told the time or the numbers. The sender
draws nothing and computes no percentile while it sends; its parent shows the progress.

What a number means:

- Open loop: a request has a planned time and leaves then, whatever became of those before it. Latency counts from the
  planned time to the last byte. It is made of the sender's own delay (planned until the sender got to it), the wait for
  a free connection, and the server; the first two are reported beside it, and a note says when they matter.
- Closed loop: so many connections, each of which asks again when it is answered. A server that slows down is asked
  less, so these latencies flatter it under overload; every output says which loop it was.
- Percentiles are of the 2xx answers. A request that failed keeps no SLO, nor does one that never left.
- The rate is of answers that were complete while it was sent; the last ones, which come after, are in the percentiles.

Decision: our own sender, an asyncio.Protocol on httptools under uvloop, one request at a time on a connection. It takes
8 us of CPU a request in a closed loop, 31 with a Poisson plan of 8,000/s and all of its recording, where wrk takes 6
and hey 21 (`benchmarks/results/sender_speed.json`). Refused: general HTTP clients, which cost more than the
server does; wrk and hey themselves, which have no plan of departures and know no tensors.

Decision: a plan is awaited with a timerfd. Event loops round timers to 1 ms, which would send 8,000/s in packs of
eight; so the median of the sender's own delay is 0.02 ms. Elsewhere than on Linux it is the loop's own timer, and the
delay is reported as everywhere.

Decision: latencies are counted in a dict by microsecond, rounded to what an HDR histogram tells apart, and become
HdrHistograms at the end: recording in one costs 0.65 us of Python, a count 0.15. Those of several processes merge
without loss, as text in the result. Refused: keeping each latency, and averaging percentiles.

Decision: warm-up is a run of its own on the same connections, and is over before the measured one begins. Only so do
the server's counters over the run hold the same requests as the sender's, and any difference is an error.
"""

from redserve.bench.arrivals import Arrivals, Burst, Constant, Poisson, Ramp, Replay
from redserve.bench.histogram import Histogram
from redserve.bench.load import Load
from redserve.bench.recorder import TallyRecorder
from redserve.bench.result import Result
from redserve.bench.run import run_load
from redserve.bench.sender import Recorder, Sender
from redserve.bench.tally import Tally

__all__ = [
    "Arrivals",
    "Burst",
    "Constant",
    "Histogram",
    "Load",
    "Poisson",
    "Ramp",
    "Recorder",
    "Replay",
    "Result",
    "Sender",
    "Tally",
    "TallyRecorder",
    "run_load",
]
