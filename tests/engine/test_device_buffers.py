"""Kept buffers, on the CPU provider: the same path as on a GPU, whose memory is then the CPU's."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_models as models
import onnxruntime
import pytest
from fake_cudart import FakeCudart
from puppet import PuppetEngine

from redserve.engine import device_buffers
from redserve.engine.cudart import Cudart
from redserve.engine.device_buffers import DeviceBuffers, RuntimeCopies
from redserve.engine.onnx_runtime import OnnxRuntimeEngine
from redserve.engine.row_runner import RowRunner
from redserve.errors import ModelError


class CountingCopies(RuntimeCopies):
    """Where inputs were written to."""

    def __init__(self):
        self.addresses = []

    def fill(self, value, array):
        self.addresses.append(value.data_ptr())
        super().fill(value, array)


@pytest.fixture(params=["ONNX Runtime", "the CUDA runtime"])
def copies(request):
    return RuntimeCopies() if request.param == "ONNX Runtime" else Cudart(FakeCudart(), 0)


def buffers(path, copies):
    engine = OnnxRuntimeEngine.load(path, device="cpu")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return DeviceBuffers(onnxruntime, session, engine.inputs, engine.outputs, device=("cpu", 0), copies=copies)


def run(bound, x):
    (y,) = bound.run({"x": x}, onnxruntime.RunOptions())
    return y


def test_every_shape_gives_its_own_answers(copies, tmp_path):
    bound = buffers(models.row_encoding(tmp_path), copies)
    for rows in (3, 1, 3, 2, 1):
        x = np.random.default_rng(rows).random((rows, 4), np.float32)
        np.testing.assert_array_equal(run(bound, x), 2 * x + 1)


def test_rows_that_are_not_contiguous_are_copied_right(copies, tmp_path):
    x = np.arange(16, dtype=np.float32).reshape(4, 4).T
    np.testing.assert_array_equal(run(buffers(models.row_encoding(tmp_path), copies), x), 2 * x + 1)


def test_a_shape_that_comes_again_is_filled_into_the_same_memory(tmp_path):
    copies = CountingCopies()
    bound = buffers(models.row_encoding(tmp_path), copies)
    for rows in (2, 3, 2, 3, 2):
        run(bound, np.ones((rows, 4), np.float32))
    two, three = copies.addresses[:2]
    assert copies.addresses == [two, three, two, three, two]
    assert two != three


def test_answers_outlive_later_runs_of_the_same_shape(copies, tmp_path):
    bound = buffers(models.identity(tmp_path), copies)
    first = run(bound, np.ones((2, 4), np.float32))
    for _ in range(5):
        run(bound, np.zeros((2, 4), np.float32))
    assert first.tolist() == [[1] * 4] * 2


def test_runs_that_overlap_have_buffers_of_their_own(copies, tmp_path):
    bound = buffers(models.row_encoding(tmp_path), copies)
    ready = threading.Barrier(4)

    def run_often(seed):
        random, wrong = np.random.default_rng(seed), 0
        ready.wait(20)
        for _ in range(300):
            x = random.random((2, 4), np.float32)
            wrong += not np.array_equal(run(bound, x), 2 * x + 1)
        return wrong

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(run_often, range(4))) == 0


def test_the_buffers_of_shapes_that_no_longer_come_are_freed(tmp_path, monkeypatch):
    monkeypatch.setattr(device_buffers, "MAX_SHAPES", 2)
    copies = CountingCopies()
    bound = buffers(models.row_encoding(tmp_path), copies)
    made = []
    real_bind = bound.bind
    bound.bind = lambda tensors: made.append(len(tensors["x"])) or real_bind(tensors)
    for rows in (1, 2, 1, 3, 1, 2):
        run(bound, np.ones((rows, 4), np.float32))
    assert made == [1, 2, 3, 2]


def test_another_dtype_is_refused_where_onnx_runtime_would_read_noise(copies, tmp_path):
    bound = buffers(models.row_encoding(tmp_path), copies)
    run(bound, np.ones((2, 4), np.float32))
    with pytest.raises(ModelError, match="input 'x' must be float32, got float64"):
        run(bound, np.ones((2, 4)))
    with pytest.raises(ModelError, match="input 'x' must be float32, got int32"):
        run(bound, np.ones((2, 4), np.int32))


def test_a_run_that_failed_leaves_no_buffers_that_fail_the_next(copies, tmp_path):
    bound = buffers(models.row_encoding(tmp_path), copies)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="Got invalid dimensions"):
            run(bound, np.ones((2, 5), np.float32))
    assert run(bound, np.zeros((2, 4), np.float32)).tolist() == [[1] * 4] * 2


def test_a_scalar_has_a_place_too(copies, tmp_path):
    assert run(buffers(models.identity(tmp_path, shape=[]), copies), np.array(3, np.float32)).tolist() == 3


def test_outputs_whose_size_depends_on_the_values_come_back_whole(copies, tmp_path):
    bound = buffers(models.nonzero(tmp_path), copies)
    assert run(bound, np.array([0, 1, 1], np.float32)).tolist() == [[1, 2]]
    assert run(bound, np.array([1, 1, 1], np.float32)).tolist() == [[0, 1, 2]]


def test_page_locked_memory_is_used_for_batches_and_given_back():
    library = FakeCudart()
    cudart = Cudart(library, 0)
    array = cudart.empty((3, 5), np.dtype(np.float32))
    array[:] = 7
    assert array.shape == (3, 5)
    assert library.locked == {array.ctypes.data: 60}
    view = array[1:]
    del array
    assert library.locked
    assert view.tolist() == [[7] * 5] * 2
    del view
    assert library.locked == {}


def test_where_the_system_locks_no_memory_a_batch_is_in_ordinary_memory():
    library = FakeCudart(refuses_to_lock=True)
    array = Cudart(library, 0).empty((2, 2), np.dtype(np.float32))
    array[:] = 1
    del array
    assert library.locked == {}
    assert library.last_error == 0  # else ONNX Runtime would find it after its next kernel


def test_a_copy_that_fails_is_a_model_error(tmp_path):
    library = FakeCudart()
    bound = buffers(models.row_encoding(tmp_path), Cudart(library, 0))
    library.fails_to_copy = True
    with pytest.raises(ModelError, match="CUDA error 700 in a copy of 32 bytes"):
        run(bound, np.ones((2, 4), np.float32))
    assert library.last_error == 0
    library.fails_to_copy = False
    assert run(bound, np.zeros((2, 4), np.float32)).tolist() == [[1] * 4] * 2


class EngineWithMemory(PuppetEngine):
    def __init__(self):
        super().__init__()
        self.made = []

    def empty(self, shape, dtype):
        self.made.append((shape, dtype))
        return np.empty(shape, dtype)


def test_batches_are_gathered_in_memory_of_the_engine():
    engine, x = EngineWithMemory(), np.ones((1, 2), np.float32)
    runner = RowRunner(engine, 8)
    for _ in range(3):
        runner([{"x": x}, {"x": x}])
    assert engine.made == [((8, 2), np.dtype(np.float32))]
