import os
from pathlib import Path

import numpy as np
import onnx_models as models
import onnxruntime

from puppet_engine import PuppetEngine
from redserve.engine.arena import RARE, ArenaWatch
from redserve.engine.device_buffers import DeviceBuffers, RuntimeCopies
from redserve.engine.onnx_runtime import OnnxRuntimeEngine
from redserve.models import ModelOptions
from redserve.models.prepare import prepare


def warm_watch(*sizes):
    watch = ArenaWatch("gpu:0")
    watch.begin_warm_up()
    watch.gives_back(1)
    for size in sizes:
        watch.gives_back(size)
    watch.end_warm_up()
    return watch


def given_back(watch, *sizes):
    return [watch.gives_back(size) for size in sizes]


def test_what_the_measurement_took_is_given_back_before_the_warm_up():
    watch = ArenaWatch("gpu:0")
    assert given_back(watch, 1, 64, 64) == [False] * 3
    watch.begin_warm_up()
    assert given_back(watch, 1, 8, 4, 1) == [True, False, False, False]


def test_usual_runs_give_nothing_back():
    assert not any(given_back(warm_watch(8, 4), *[1, 8, 4] * RARE))


def test_after_a_rare_large_run_memory_is_given_back_once():
    watch = warm_watch(8)
    assert given_back(watch, 100) == [False]
    assert given_back(watch, *[8] * (2 * RARE)) == [False] * (RARE - 1) + [True] + [False] * RARE


def test_large_runs_that_come_often_keep_their_memory():
    watch = warm_watch(8)
    assert not any(given_back(watch, *[100, *[8] * (RARE - 1)] * 3))
    assert given_back(watch, 8) == [True]


def test_without_a_warm_up_nothing_is_rare():
    assert not any(given_back(ArenaWatch("gpu:0"), 100, *[1] * 2 * RARE))


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_onnx_runtime_gives_the_memory_back(tmp_path):
    path = models.hungry(tmp_path)
    engine = OnnxRuntimeEngine.load(path, device="cpu")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    watch = warm_watch(8)
    watch.device = "cpu:0"
    bound = DeviceBuffers(
        onnxruntime,
        session,
        engine.inputs,
        engine.outputs,
        device=("cpu", 0),
        copies=RuntimeCopies(),
        arena=watch,
    )

    def run(zeros, *, rows=1):
        bound.run({"x": np.full((rows, 2), zeros, np.float32)}, onnxruntime.RunOptions())

    before = resident_bytes()
    run(50e6, rows=2)  # 200 MB
    grown = resident_bytes() - before
    run(1)
    kept = resident_bytes() - before
    for _ in range(RARE - 1):
        run(1)
    left = resident_bytes() - before
    assert grown > 150e6
    assert kept > 150e6
    assert left < 50e6


def test_a_model_is_measured_and_warmed_up_with_the_watch_told():
    class Watched(PuppetEngine):
        def __init__(self):
            super().__init__()
            self.arena = self
            self.told = []

        def begin_warm_up(self):
            self.told.append(("begin", len(self.ran_rows)))

        def end_warm_up(self):
            self.told.append(("end", len(self.ran_rows)))

    engine = Watched()
    prepare(lambda: engine, ModelOptions(max_batch_size=4))
    (began, before), (ended, after) = engine.told
    assert (began, ended) == ("begin", "end")
    assert 4 in engine.ran_rows[before:after]
