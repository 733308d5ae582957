"""The way of a run with CUDA graphs, on the CPU provider: all but the graph itself, which takes a GPU."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_models as models
import onnxruntime
import pytest

from redserve.engine import cuda_graphs
from redserve.engine.cuda_graphs import GraphBuffers
from redserve.engine.curve import measure_curve, warm_up
from redserve.engine.device_buffers import DeviceBuffers, RuntimeCopies
from redserve.engine.onnx_runtime import OnnxRuntimeEngine
from redserve.engine.own_thread import OwnThread
from redserve.engine.row_runner import RowRunner
from redserve.errors import ModelError, ModelLoadError


def load(path, **settings):
    return OnnxRuntimeEngine.load(path, **{"device": "cpu", "cuda_graphs": True, **settings})


class WatchedSession:
    """A real session, and of each run its graph and thread, and where its inputs were."""

    def __init__(self, path):
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.runs = []

    def io_binding(self):
        return self._session.io_binding()

    def run_with_iobinding(self, io, options):
        self.runs.append((int(options.get_run_config_entry("gpu_graph_id")), threading.get_ident()))
        self._session.run_with_iobinding(io, options)


@pytest.fixture
def watched(tmp_path):
    path = models.row_encoding(tmp_path)
    engine = OnnxRuntimeEngine.load(path, device="cpu")
    session = WatchedSession(path)
    buffers = DeviceBuffers(
        onnxruntime, session, engine.inputs, engine.outputs, device=("cpu", 0), copies=RuntimeCopies()
    )
    graphs = GraphBuffers(buffers)
    yield session, graphs
    graphs.close()


def run(graphs, rows, value=1.0):
    (y,) = graphs.run({"x": np.full((rows, 4), value, np.float32)}, onnxruntime.RunOptions())
    return y


def test_a_new_size_is_first_run_without_a_graph_and_then_captured(watched):
    session, graphs = watched
    assert run(graphs, 2, 5).tolist() == [[11] * 4] * 2
    assert [graph for graph, _ in session.runs] == [-1, 1]


def test_every_size_has_its_graph_and_keeps_it(watched):
    session, graphs = watched
    for rows in (4, 1, 4, 2, 1, 4):
        assert run(graphs, rows, rows).tolist() == [[2 * rows + 1] * 4] * rows
    assert [graph for graph, _ in session.runs] == [-1, 1, -1, 2, 1, -1, 3, 2, 1]


def test_all_runs_are_in_one_thread_whoever_asks(watched):
    session, graphs = watched

    def run_often(seed):
        return all(run(graphs, 2, value).tolist() == [[2 * value + 1] * 4] * 2 for value in range(seed, seed + 50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run_often, range(0, 400, 100)))
    threads = {thread for _, thread in session.runs}
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_answers_outlive_the_next_run_that_writes_to_the_same_place(watched):
    _, graphs = watched
    first = run(graphs, 2, 5)
    run(graphs, 2, 0)
    assert first.tolist() == [[11] * 4] * 2


def test_what_failed_is_captured_anew_under_another_number(watched):
    session, graphs = watched
    real_run, fails = session.run_with_iobinding, [True]

    def fail_once(io, options):
        real_run(io, options)
        if options.get_run_config_entry("gpu_graph_id") != "-1" and fails.pop():
            raise RuntimeError("CUDA failure 901: operation failed due to a previous error during capture")

    session.run_with_iobinding = fail_once
    with pytest.raises(RuntimeError, match="during capture"):
        run(graphs, 2)
    session.run_with_iobinding = real_run
    assert run(graphs, 2).tolist() == [[3] * 4] * 2
    assert [graph for graph, _ in session.runs] == [-1, 1, -1, 2]


def test_there_is_an_end_to_the_sizes(watched, monkeypatch):
    _, graphs = watched
    monkeypatch.setattr(cuda_graphs, "MAX_GRAPHS", 2)
    run(graphs, 1)
    run(graphs, 2)
    with pytest.raises(ModelError, match="2 batch sizes have a CUDA graph"):
        run(graphs, 3)
    assert run(graphs, 2).tolist() == [[3] * 4] * 2


@pytest.mark.parametrize("batch", [1, 4, "batch"])
def test_every_batch_size_gives_each_row_its_own_answer(batch, tmp_path):
    engine = load(models.row_encoding(tmp_path, batch=batch))
    sizes = (1, 2, 4, 8) if batch == "batch" else ()
    measure_curve(engine, sizes=sizes)
    warm_up(engine, 8, sizes)
    runner = RowRunner(engine, 8, sizes=sizes)
    for size in range(1, 9):
        requests = [{"x": np.full((1, 4), row, np.float32)} for row in range(size)]
        assert [result[0].tolist() for result in runner(requests)] == [[[2 * row + 1] * 4] for row in range(size)]
    engine.close()


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (models.token_sum, "cuda_graphs: input ids int64 .* leaves .* open, and a graph has fixed sizes"),
        (models.text, "cuda_graphs: x .* is text or bfloat16"),
        (models.rows_lost, "cuda_graphs: input x .* leaves batch open, and each request runs as it came"),
    ],
)
def test_a_model_that_cannot_have_graphs_is_refused_with_the_reason(build, why, tmp_path):
    with pytest.raises(ModelLoadError, match=why):
        load(build(tmp_path))


def test_rows_that_change_each_other_are_run_one_by_one_with_one_graph(tmp_path):
    engine = load(models.mixing(tmp_path))
    assert engine.batchability.rows == 1
    with pytest.raises(ModelLoadError, match="cuda_graphs: batches may not be padded: a row's answer changes"):
        load(models.mixing(tmp_path), batching="on")
    engine.close()


def test_where_no_gpu_comes_up_runs_go_as_ever(tmp_path):
    before = graph_threads()  # those of engines that are closed may still be on their way out
    engine = load(models.row_encoding(tmp_path), device="auto")
    if not engine.is_on_gpu:
        assert engine.can_run_inline
        assert not graph_threads() - before


def test_no_batch_with_graphs_runs_on_the_event_loop(tmp_path):
    path = models.row_encoding(tmp_path)
    assert OnnxRuntimeEngine.load(path, device="cpu").can_run_inline
    assert not load(path).can_run_inline


def test_a_run_with_graphs_can_be_interrupted_by_who_waits_for_it(tmp_path):
    engine = load(models.slow(tmp_path))
    failures = []

    def run_for_hours():
        try:
            engine.run({"x": np.full((1, 64), 1e6, np.float32)})
        except ModelError as error:
            failures.append(str(error))

    thread = threading.Thread(target=run_for_hours)
    thread.start()
    while thread.is_alive():
        engine.interrupt(thread.ident)
        thread.join(0.01)
    assert failures == ["the run was interrupted"]
    assert engine.run({"x": np.zeros((1, 64), np.float32)})[0].shape == (1, 64)


def graph_threads():
    return {thread for thread in threading.enumerate() if thread.name == "redserve-graphs"}


@pytest.mark.parametrize("ends_by", ["close", "being forgotten"])
def test_the_thread_of_an_engine_ends_with_it(ends_by, tmp_path):
    before = graph_threads()
    engine = load(models.row_encoding(tmp_path))
    (own,) = graph_threads() - before
    if ends_by == "close":
        engine.close()
        with pytest.raises(ModelError, match="the engine is closed"):
            engine.run({"x": np.ones((1, 4), np.float32)})
    del engine
    gc.collect()
    own.join(20)
    assert not own.is_alive()


def test_a_thread_of_ones_own_hands_back_what_is_returned_and_raised():
    own = OwnThread("test")
    assert own.call(lambda: 7) == 7
    with pytest.raises(KeyError):
        own.call(lambda: {}["missing"])
    own.close()
    own.close()
    with pytest.raises(ModelError, match="closed"):
        own.call(lambda: 7)
