import itertools
import logging
import math

import numpy as np
import onnx_models as models
import pytest
from puppet import DYNAMIC, WHOLE, PuppetEngine, fixed

from redserve.engine.curve import CurvePoint, choose_max_batch_size, measure_curve, usual_run_s, warm_up
from redserve.engine.onnx_runtime import OnnxRuntimeEngine
from redserve.errors import ModelError


class TimedEngine(PuppetEngine):
    """Each run takes `cost_s(rows)` on its own clock."""

    def __init__(self, cost_s, batchability=DYNAMIC):
        super().__init__(batchability)
        self.now_s = 0.0
        self.cost_s = cost_s

    def clock(self):
        return self.now_s

    def run(self, tensors):
        self.now_s += self.cost_s(len(tensors["x"]))
        return super().run(tensors)


def sizes(curve):
    return [point.rows for point in curve]


def run_sizes(engine):
    return [len(batch["x"]) for batch in engine.batches]


def refuse(tensors):
    raise ModelError("not this one")


def test_a_batch_that_pays_is_measured_up_to_128_rows():
    engine = TimedEngine(lambda rows: 0.001 + 0.000001 * rows)
    curve = measure_curve(engine, clock=engine.clock)
    assert sizes(curve) == [1, 2, 4, 8, 16, 32, 64, 128]
    assert curve[3].seconds == pytest.approx(0.001008)
    assert curve[3].rows_per_s == pytest.approx(8 / 0.001008)


@pytest.mark.parametrize(
    ("seconds", "short_s", "chosen"),
    [
        ({64: 130e-6, 128: 220e-6}, 200e-6, 64),
        ({64: 130e-6, 128: 190e-6}, 200e-6, 128),
        ({64: 210e-6, 128: 300e-6}, 200e-6, 128),
        ({64: 130e-6, 128: 220e-6}, 0.0, 128),
        ({32: 130e-6, 64: 220e-6}, 200e-6, 64),
    ],
)
def test_half_of_the_best_batch_is_taken_where_only_half_is_short_enough_for_the_event_loop(seconds, short_s, chosen):
    curve = [CurvePoint(rows, took_s) for rows, took_s in seconds.items()]
    assert choose_max_batch_size(curve, short_s=short_s) == chosen


def test_the_curve_ends_when_two_doublings_bring_nothing():
    engine = TimedEngine(lambda rows: 0.001 + (0.0001 * rows if rows <= 4 else 0.001 * rows))
    assert sizes(measure_curve(engine, clock=engine.clock)) == [1, 2, 4, 8, 16]


def test_a_machine_that_was_busy_with_something_else_for_a_moment_does_not_end_the_curve():
    engine = TimedEngine(lambda rows: (0.001 + 0.000001 * rows) * (20 if 0.02 < engine.now_s < 0.3 else 1))
    curve = measure_curve(engine, clock=engine.clock)
    assert sizes(curve) == [1, 2, 4, 8, 16, 32, 64, 128]
    assert [point.seconds for point in curve] == pytest.approx([0.001 + 0.000001 * point.rows for point in curve])


class Disturbed(TimedEngine):
    """Computes in the caller and a helper, beside busy processes: in turn both get a core, the caller alone, the helper
    alone. From 16 rows on the clock on the wall tells nothing about the work."""

    computes_in_caller = True
    intra_op_threads = 2

    def __init__(self):
        super().__init__(lambda rows: 0.002 if rows < 16 else 0.020)
        self.thread_s = self.process_s = 0.0
        self.shares = itertools.cycle([1.0, 0.5, 0.0])

    def run(self, tensors):
        work_s = 0.002 + 0.000002 * len(tensors["x"])
        self.thread_s += next(self.shares) * work_s
        self.process_s += work_s
        return super().run(tensors)


def test_busy_processes_are_left_out_where_the_caller_computes(monkeypatch):
    monkeypatch.setattr("redserve.engine.curve.usable_cpus", lambda: 2)
    engine = Disturbed()
    clocks = {"clock": engine.clock, "cpu_clocks": (lambda: engine.thread_s, lambda: engine.process_s)}
    curve = measure_curve(engine, **clocks)
    assert sizes(curve) == [1, 2, 4, 8, 16, 32, 64, 128]
    assert [point.seconds for point in curve] == pytest.approx([0.001 + 0.000001 * point.rows for point in curve])
    assert usual_run_s(engine, 64, budget_s=10.0, **clocks) == pytest.approx(0.002128)  # two of three are disturbed


@pytest.mark.parametrize("threads", [1, None])
def test_what_other_threads_of_the_process_compute_is_left_out_where_the_caller_is_alone(threads):
    engine = Disturbed()
    engine.intra_op_threads = threads
    engine.shares = itertools.repeat(1.0)
    clocks = (lambda: engine.thread_s, lambda: engine.thread_s + engine.now_s)
    assert usual_run_s(engine, 64, clock=engine.clock, cpu_clocks=clocks) == pytest.approx(0.002128)


def test_in_onnx_runtime_the_caller_computes_on_the_cpu_one_node_at_a_time(tmp_path):
    model = models.token_sum(tmp_path)
    nodes_at_once = {"execution_mode": "parallel", "inter_op_num_threads": 2}
    parallel = OnnxRuntimeEngine.load(model, device="cpu", session_options=nodes_at_once)
    assert OnnxRuntimeEngine.load(model, device="cpu").computes_in_caller
    assert not parallel.computes_in_caller


def test_the_curve_ends_when_the_budget_is_used_up():
    engine = TimedEngine(lambda rows: 1.0)
    assert sizes(measure_curve(engine, budget_s=5.0, clock=engine.clock)) == [1]
    assert engine.now_s < 8


def test_even_without_a_budget_one_size_is_measured():
    engine = TimedEngine(lambda rows: 1.0)
    assert measure_curve(engine, budget_s=0.0, clock=engine.clock) == [CurvePoint(1, 1.0)]


def test_the_median_forgives_one_slow_run():
    runs = iter(range(1000))
    engine = TimedEngine(lambda rows: 5.0 if next(runs) == 4 else 0.01)
    assert measure_curve(engine, max_rows=1, budget_s=100, clock=engine.clock)[0].seconds == pytest.approx(0.01)


def test_a_size_that_fails_ends_the_curve(caplog):
    engine = PuppetEngine(answer=lambda tensors: refuse(tensors) if len(tensors["x"]) > 2 else [tensors["x"]])
    with caplog.at_level(logging.WARNING, "redserve.engine"):
        curve = measure_curve(engine)
    assert sizes(curve) == [1, 2]
    assert [record.rows for record in caplog.records] == [4]


def test_a_model_of_one_size_is_measured_there():
    assert sizes(measure_curve(PuppetEngine(fixed(4)))) == [4]
    assert sizes(measure_curve(PuppetEngine(fixed(100)))) == [100]
    assert sizes(measure_curve(PuppetEngine(WHOLE))) == [1]


def test_the_smallest_batch_close_to_the_best_is_chosen():
    curve = [CurvePoint(1, 1.0), CurvePoint(2, 1.2), CurvePoint(4, 2.0), CurvePoint(8, 3.9), CurvePoint(16, 9.0)]
    assert choose_max_batch_size(curve) == 4


def test_where_batching_does_not_pay_one_row_is_chosen():
    assert choose_max_batch_size([CurvePoint(1, 1.0), CurvePoint(2, 2.0), CurvePoint(4, 4.1)]) == 1


def test_an_unmeasured_model_gets_a_cautious_batch_size():
    assert choose_max_batch_size([]) == 8


def test_warming_up_runs_every_batch_size_the_largest_first():
    engine = PuppetEngine()
    assert warm_up(engine, 4) == 4
    assert run_sizes(engine)[-4:] == [4, 3, 2, 1]


@pytest.mark.parametrize(("batchability", "rows"), [(fixed(3), 3), (WHOLE, 1)])
def test_warming_up_a_model_of_one_size_runs_that_size(batchability, rows):
    engine = PuppetEngine(batchability)
    assert warm_up(engine, 64) == 1
    assert set(run_sizes(engine)) == {rows}


def test_a_model_that_no_made_up_input_fits_stays_cold_and_is_told(caplog):
    engine = PuppetEngine(answer=refuse)
    with caplog.at_level(logging.WARNING, "redserve.engine"):
        assert measure_curve(engine) == []
        assert warm_up(engine, 4) == 0
    assert {record.error for record in caplog.records} == {"not this one"}


def test_a_size_that_fails_fails_the_warm_up():
    engine = PuppetEngine(answer=lambda tensors: refuse(tensors) if len(tensors["x"]) == 3 else [tensors["x"]])
    with pytest.raises(ModelError, match="not this one"):
        warm_up(engine, 4)


def test_open_sizes_are_found_by_trying(tmp_path):
    engine = OnnxRuntimeEngine.load(models.only_64_columns(tmp_path), device="cpu")
    assert engine.batchability.mode == "dynamic"
    assert warm_up(engine, 2) == 2


def test_a_real_model_is_measured_and_warmed(tmp_path):
    engine = OnnxRuntimeEngine.load(models.token_sum(tmp_path), device="cpu")
    curve = measure_curve(engine, max_rows=4)
    assert sizes(curve)[0] == 1
    assert all(0 < point.seconds < 1 for point in curve)
    assert engine.run({"ids": np.ones((3, 5), np.int64)})[0].tolist() == [5, 5, 5]


def test_what_a_run_usually_takes_is_not_what_one_in_four_takes_while_the_machine_is_busy():
    runs = iter(range(1000))
    engine = TimedEngine(lambda rows: 0.005 if next(runs) % 4 == 0 else 0.0001)

    assert usual_run_s(engine, 4, budget_s=100.0, clock=engine.clock) == pytest.approx(0.0001)
    assert set(run_sizes(engine)[2:]) == {4}


def test_what_a_run_takes_is_not_known_of_a_model_that_no_made_up_input_fits():
    assert usual_run_s(PuppetEngine(answer=refuse), 1) == math.inf
