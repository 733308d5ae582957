"""The committed demo model is what its script makes of the data, and as good as it says."""

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest

from redserve import demo
from redserve.engine.onnx_runtime import OnnxRuntimeEngine

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "models" / "digits.py"


@pytest.fixture(scope="module")
def digits():
    """The script that makes the demo model."""
    spec = importlib.util.spec_from_file_location("digits", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def engine():
    return OnnxRuntimeEngine.load(demo.path(), device="cpu")


def accuracy(engine, digits):
    pixels, labels = digits.held_out()
    _, answers = engine.run({"pixels": pixels})
    return float(np.mean(answers == labels))


def test_it_takes_any_number_of_images(engine):
    assert [str(spec) for spec in engine.inputs] == ["pixels float32 [batch, 64]"]
    assert [str(spec) for spec in engine.outputs] == ["probabilities float32 [batch, 10]", "label int64 [batch]"]
    assert (engine.batchability.mode, engine.batchability.note) == ("dynamic", "")


def test_it_reads_97_of_100_digits_it_never_saw_and_says_so(engine, digits):
    assert accuracy(engine, digits) >= 0.97
    assert float(engine.metadata["test_accuracy"]) == pytest.approx(accuracy(engine, digits), abs=0.0001)
    assert engine.metadata["labels"].split(",") == [str(digit) for digit in range(10)]


def test_its_probabilities_add_up_to_one_and_name_the_label(engine, digits):
    probabilities, label = engine.run({"pixels": digits.held_out()[0]})
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), label)


def test_it_is_small():
    assert demo.path().stat().st_size < 21_000


def test_there_is_a_sample_of_each_digit_and_it_is_read_right(engine, digits):
    samples = demo.samples()
    assert samples == digits.samples()
    assert [sample["label"] for sample in samples] == list(range(10))
    pixels = np.array([sample["pixels"] for sample in samples], np.float32)
    assert engine.run({"pixels": pixels})[1].tolist() == list(range(10))


def test_nothing_held_out_was_trained_on(digits):
    (train, _), (test, _) = digits.split()
    assert (len(train), len(test)) == (1347, 450)
    assert not {row.tobytes() for row in train} & {row.tobytes() for row in test}


def test_the_script_makes_this_model_again(engine, digits, tmp_path):
    path = tmp_path / "digits.onnx"
    onnx.save(digits.build(), path)
    rebuilt = OnnxRuntimeEngine.load(path, device="cpu")
    assert abs(path.stat().st_size - demo.path().stat().st_size) < 500
    assert accuracy(rebuilt, digits) == pytest.approx(accuracy(engine, digits), abs=0.015)
    assert rebuilt.inputs == engine.inputs
    assert rebuilt.outputs == engine.outputs
    assert rebuilt.metadata.keys() == engine.metadata.keys()
