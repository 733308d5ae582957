"""The same on a real GPU. Without one these are skipped; with `REDSERVE_REQUIRE_CUDA=1` that is a failure."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_models as models
import pytest

from redserve.engine.cudart import Cudart
from redserve.engine.curve import warm_up
from redserve.engine.onnx_runtime import OnnxRuntimeEngine
from redserve.engine.row_runner import RowRunner
from redserve.errors import ModelError, ModelLoadError


@pytest.fixture(scope="module")
def load_on_cuda(tmp_path_factory):
    """Loads on the GPU, or skips the test with the reason why there is none."""
    try:
        OnnxRuntimeEngine.load(models.row_encoding(tmp_path_factory.mktemp("cuda")), device="cuda").close()
    except ModelLoadError as error:
        if os.environ.get("REDSERVE_REQUIRE_CUDA") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))
    return lambda path, **settings: OnnxRuntimeEngine.load(path, device="cuda", **settings)


def test_cuda_comes_up_and_says_so(load_on_cuda, tmp_path):
    engine = load_on_cuda(models.row_encoding(tmp_path))
    assert (engine.provider, engine.provider_note) == ("CUDAExecutionProvider", "")
    assert engine.batchability.mode == "dynamic"
    assert (engine.intra_op_threads, engine.slots, engine.is_on_gpu) == (1, 2, True)


@pytest.mark.parametrize("batch", [1, 4, "batch"])
def test_every_row_gets_its_own_answer_on_the_gpu(batch, load_on_cuda, tmp_path):
    engine = load_on_cuda(models.row_encoding(tmp_path, batch=batch))
    warm_up(engine, 8)
    runner = RowRunner(engine, 8)
    for size in range(1, 9):
        requests = [{"x": np.full((1, 4), row, np.float32)} for row in range(size)]
        assert [result[0].tolist() for result in runner(requests)] == [[[2 * row + 1] * 4] for row in range(size)]


@pytest.mark.parametrize("settings", [{}, {"pinned": False}, {"io_binding": False}, {"cuda_graphs": True}])
def test_padded_batches_of_every_size_are_answered_row_by_row(settings, load_on_cuda, tmp_path):
    engine = load_on_cuda(models.row_encoding(tmp_path), **settings)
    sizes = (1, 2, 4, 8)
    warm_up(engine, 8, sizes)
    runner = RowRunner(engine, 8, sizes=sizes)
    for size in (*range(1, 9), *range(8, 0, -1)):
        requests = [{"x": np.full((1, 4), row, np.float32)} for row in range(size)]
        assert [result[0].tolist() for result in runner(requests)] == [[[2 * row + 1] * 4] for row in range(size)]
    engine.close()


def test_two_runs_in_progress_on_the_gpu_do_not_mix(load_on_cuda, tmp_path):
    engine = load_on_cuda(models.row_encoding(tmp_path))

    def run_often(seed):
        random, wrong = np.random.default_rng(seed), 0
        for rows in random.integers(1, 9, 300):
            x = random.random((int(rows), 4), np.float32)
            wrong += not np.array_equal(engine.run({"x": x})[0], 2 * x + 1)
        return wrong

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(run_often, range(2))) == 0


def test_batches_for_the_gpu_are_gathered_in_page_locked_memory(load_on_cuda, tmp_path):
    engine = load_on_cuda(models.row_encoding(tmp_path))
    assert isinstance(engine.empty.__self__, Cudart)
    assert engine.empty((3, 4), np.dtype(np.float32)).shape == (3, 4)


def test_a_model_with_control_flow_has_no_graph(load_on_cuda, tmp_path):
    with pytest.raises(ModelLoadError, match="cuda_graphs: "):
        load_on_cuda(models.slow(tmp_path), cuda_graphs=True)


def test_results_from_the_gpu_outlive_later_runs(load_on_cuda, tmp_path):
    engine = load_on_cuda(models.row_encoding(tmp_path))
    (first,) = engine.run({"x": np.ones((2, 4), np.float32)})
    for _ in range(20):
        engine.run({"x": np.zeros((2, 4), np.float32)})
    assert first.tolist() == [[3] * 4] * 2


def test_a_failed_run_on_the_gpu_leaves_the_engine_usable(load_on_cuda, tmp_path):
    engine = load_on_cuda(models.row_encoding(tmp_path))
    with pytest.raises(ModelError):
        engine.run({"x": np.ones((1, 5), np.float32)})
    assert engine.run({"x": np.zeros((1, 4), np.float32)})[0].tolist() == [[1] * 4]
