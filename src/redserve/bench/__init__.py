"""The load tester behind `redserve bench`."""

from redserve.bench.arrivals import Arrivals, Burst, Constant, Poisson, Ramp, Replay
from redserve.bench.histogram import Histogram
from redserve.bench.load import Load
from redserve.bench.recorder import TallyRecorder
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
    "Sender",
    "Tally",
    "TallyRecorder",
    "run_load",
]
