import numpy as np
import onnx_models as models
import pytest
from puppet import DYNAMIC, WHOLE, PuppetEngine, fixed

from redserve.engine.base import Batchability
from redserve.engine.buckets import sizes_up_to, takes_buckets
from redserve.engine.curve import measure_curve, warm_up
from redserve.engine.onnx_runtime import OnnxRuntimeEngine
from redserve.engine.row_runner import RowRunner
from redserve.errors import ModelLoadError

MIXING = Batchability(mode="dynamic", reason="asked for", note="a row's answer changes with its batch mates: by 0.1")


class GpuPuppet(PuppetEngine):
    is_on_gpu = True


def request(*values):
    return {"x": np.array([[value] for value in values], np.float32)}


@pytest.mark.parametrize(
    ("largest", "sizes"), [(1, (1,)), (2, (1, 2)), (8, (1, 2, 4, 8)), (12, (1, 2, 4, 8, 12)), (3, (1, 2, 3))]
)
def test_the_sizes_are_powers_of_two_and_the_largest_batch(largest, sizes):
    assert sizes_up_to(largest) == sizes


def test_sizes_that_are_given_end_with_the_largest_batch():
    assert sizes_up_to(8, (1, 4, 16)) == (1, 4, 8)
    assert sizes_up_to(32, (4, 16)) == (4, 16, 32)


def test_batches_are_padded_on_a_gpu_and_elsewhere_where_asked():
    assert takes_buckets(GpuPuppet(), "auto")
    assert not takes_buckets(PuppetEngine(), "auto")
    assert not takes_buckets(GpuPuppet(), "off")
    assert takes_buckets(PuppetEngine(), "on")
    assert takes_buckets(PuppetEngine(), (1, 4))


def test_where_padding_would_change_answers_there_is_none():
    assert not takes_buckets(GpuPuppet(MIXING), "auto")
    assert not takes_buckets(GpuPuppet(WHOLE), "auto")
    assert not takes_buckets(GpuPuppet(fixed(4)), "on")
    with pytest.raises(ModelLoadError, match="batch_buckets: rows may not be padded: a row's answer changes with"):
        takes_buckets(PuppetEngine(MIXING), "on")
    with pytest.raises(ModelLoadError, match="batch_buckets: rows may not be padded: the test says so"):
        takes_buckets(PuppetEngine(WHOLE), (1, 2))


def test_a_batch_is_padded_to_the_next_size_and_its_answer_is_not():
    engine = PuppetEngine(DYNAMIC)
    results = RowRunner(engine, 8, sizes=(1, 4, 8))([request(1), request(2, 3), request(4), request(5)])
    assert [result[0].tolist() for result in results] == [[[3]], [[5], [7]], [[9]], [[11]]]
    assert engine.batches[0]["x"].tolist() == [[1], [2], [3], [4], [5], [5], [5], [5]]


def test_a_request_alone_is_padded_too():
    engine = PuppetEngine(DYNAMIC)
    (result,) = RowRunner(engine, 8, sizes=(1, 4, 8))([request(1, 2)])
    assert result[0].tolist() == [[3], [5]]
    assert [len(batch["x"]) for batch in engine.batches] == [4]


def test_no_size_runs_but_those_that_are_measured_and_warm():
    engine = PuppetEngine(DYNAMIC)
    sizes = (1, 3, 6)
    assert [point.rows for point in measure_curve(engine, sizes=sizes)] == [1, 3, 6]
    engine.batches.clear()
    assert warm_up(engine, 6, sizes) == 3
    runner = RowRunner(engine, 6, sizes=sizes)
    for count in range(1, 7):
        runner([request(row) for row in range(count)])
    assert [len(batch["x"]) for batch in engine.batches[-9:-6]] == [6, 3, 1]
    assert {len(batch["x"]) for batch in engine.batches[-6:]} == {1, 3, 6}


def test_text_is_padded_with_text(tmp_path):
    engine = OnnxRuntimeEngine.load(models.text(tmp_path), device="cpu")
    runner = RowRunner(engine, 4, sizes=(1, 4))
    results = runner([{"x": np.array([word], object)} for word in ("one", "two", "three")])
    assert [result[0].tolist() for result in results] == [["one"], ["two"], ["three"]]
