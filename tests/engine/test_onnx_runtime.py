import builtins
import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnx_models as models
import pytest
from onnx import TensorProto, helper

from redserve.engine.onnx_runtime import OnnxRuntimeEngine
from redserve.engine.row_runner import RowRunner
from redserve.errors import ModelError, ModelLoadError


def load(path, **settings):
    return OnnxRuntimeEngine.load(path, **{"device": "cpu", **settings})


def test_a_model_tells_its_inputs_and_outputs(tmp_path):
    engine = load(models.two_outputs_renamed(tmp_path))
    assert [str(spec) for spec in engine.inputs] == ["a int64 [unk__1, 3]", "b int64 [unk__2, 3]"]
    assert [str(spec) for spec in engine.outputs] == ["sum int64 [unk__3, 3]", "total int64 [unk__4]"]
    assert (engine.provider, engine.provider_note) == ("CPUExecutionProvider", "")


def test_a_model_tells_its_metadata_and_no_version_where_none_was_set(tmp_path):
    path = models.row_encoding(tmp_path)
    assert load(path).model_version is None
    model = onnx.load(path)
    model.model_version, model.producer_name, model.doc_string = 7, "somebody", "doubles"
    helper.set_model_props(model, {"labels": "a,b"})
    onnx.save(model, path)
    engine = load(path)
    assert (engine.model_version, engine.producer, engine.description) == (7, "somebody", "doubles")
    assert engine.metadata == {"labels": "a,b"}


def test_outputs_come_in_the_order_of_their_specs(tmp_path):
    engine = load(models.two_outputs_renamed(tmp_path))
    ones = np.ones((2, 3), np.int64)
    summed, total = engine.run({"b": ones, "a": ones})
    assert (summed.tolist(), total.tolist()) == ([[2, 2, 2], [2, 2, 2]], [6, 6])


def test_text_goes_in_and_out(tmp_path):
    assert load(models.text(tmp_path)).run({"x": np.array(["é", ""], object)})[0].tolist() == ["é", ""]


@pytest.mark.parametrize("onnx_type", [TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8, TensorProto.BOOL])
def test_each_dtype_comes_back_as_it_went(onnx_type, tmp_path):
    engine = load(models.identity(tmp_path, dtype=onnx_type, shape=["batch", 2]))
    x = np.array([[0, 1]], engine.inputs[0].dtype)
    (y,) = engine.run({"x": x})
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, x)


def test_a_scalar_output_is_an_array_all_the_same(tmp_path):
    engine = load(models.identity(tmp_path, shape=[]))
    (y,) = engine.run({"x": np.array(3, np.float32)})
    assert isinstance(y, np.ndarray)
    assert y.shape == ()


@pytest.mark.parametrize("io_binding", [False, True])
def test_results_do_not_share_memory_with_the_inputs(io_binding, tmp_path):
    engine = load(models.identity(tmp_path), io_binding=io_binding)
    x = np.ones((2, 4), np.float32)
    (y,) = engine.run({"x": x})
    x[:] = 5
    assert y.tolist() == [[1] * 4] * 2


@pytest.mark.parametrize("io_binding", [False, True])
def test_results_outlive_later_runs_and_the_engine(io_binding, tmp_path):
    engine = load(models.row_encoding(tmp_path), io_binding=io_binding)
    (first,) = engine.run({"x": np.ones((2, 4), np.float32)})
    for _ in range(20):
        engine.run({"x": np.zeros((2, 4), np.float32)})
    engine.close()
    assert first.tolist() == [[3] * 4] * 2


@pytest.mark.parametrize("io_binding", [False, True])
def test_eight_threads_at_once_get_their_own_answers(io_binding, tmp_path):
    engine = load(models.row_encoding(tmp_path), io_binding=io_binding)

    def run_often(seed):
        random, runner = np.random.default_rng(seed), RowRunner(engine, 16)
        wrong = 0
        for _ in range(200):
            requests = [{"x": random.random((rows, 4), np.float32)} for rows in random.integers(1, 4, 4)]
            results = runner(requests)
            wrong += sum(
                not np.array_equal(result[0], request["x"] * 2 + 1)
                for request, result in zip(requests, results, strict=True)
            )
        return wrong

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(run_often, range(8))) == 0


@pytest.mark.parametrize("batch", [1, 4, "batch"])
@pytest.mark.parametrize("size", range(1, 10))
def test_every_batch_size_gives_each_row_its_own_answer(batch, size, tmp_path):
    runner = RowRunner(load(models.row_encoding(tmp_path, batch=batch)), 12)
    requests = [{"x": np.full((1, 4), row, np.float32)} for row in range(size)]
    assert [result[0].tolist() for result in runner(requests)] == [[[2 * row + 1] * 4] for row in range(size)]


def test_text_cannot_be_bound_and_is_passed_instead(tmp_path):
    engine = load(models.text(tmp_path), io_binding=True)
    assert engine.run({"x": np.array(["a"], object)})[0].tolist() == ["a"]


@pytest.mark.parametrize("io_binding", [False, True])
@pytest.mark.parametrize(
    "tensors", [{"x": np.ones((1, 5), np.float32)}, {"x": np.ones((1, 4))}, {"x": np.ones(4, np.float32)}]
)
def test_a_run_that_fails_is_a_model_error_in_one_line(io_binding, tensors, tmp_path, capfd):
    engine = load(models.row_encoding(tmp_path), io_binding=io_binding)
    with pytest.raises(ModelError) as caught:
        engine.run(tensors)
    assert "\n" not in str(caught.value)
    assert "ONNXRuntimeError" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_model_without_outputs_is_refused(tmp_path):
    path = models.save(tmp_path / "mute.onnx", [helper.make_node("Identity", ["x"], ["y"])], X, {})
    with pytest.raises(ModelLoadError, match="has no outputs"):
        load(path)


def test_a_failing_node_prints_nothing(tmp_path, capfd):
    engine = load(models.baked_batch(tmp_path))
    with pytest.raises(ModelError, match="Reshape"):
        engine.run({"x": np.ones((2, 4), np.float32)})
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("io_binding", [False, True])
def test_a_run_can_be_interrupted_and_the_engine_is_usable_at_once(io_binding, tmp_path):
    engine = load(models.slow(tmp_path), io_binding=io_binding)
    hours, nothing = np.full((1, 64), 1e6, np.float32), np.zeros((1, 64), np.float32)
    for _ in range(2):
        failures = []

        def run_for_hours(failures=failures):
            try:
                engine.run({"x": hours})
            except ModelError as error:
                failures.append(str(error))

        thread = threading.Thread(target=run_for_hours)
        thread.start()
        while thread.is_alive():
            engine.interrupt(thread.ident)
            thread.join(0.01)
        assert failures == ["the run was interrupted"]
        assert engine.run({"x": nothing})[0].tolist() == nothing.tolist()


def test_an_interrupt_meant_for_another_thread_does_not_harm(tmp_path):
    engine = load(models.slow(tmp_path, steps=2000))
    done = threading.Event()

    def interrupt_others():
        while not done.is_set():
            engine.interrupt(threading.get_ident())

    thread = threading.Thread(target=interrupt_others)
    thread.start()
    try:
        assert engine.run({"x": np.ones((1, 64), np.float32)})[0].shape == (1, 64)
    finally:
        done.set()
        thread.join()


def test_an_interrupt_without_a_run_does_nothing(tmp_path):
    engine = load(models.row_encoding(tmp_path))
    engine.interrupt()
    assert engine.run({"x": np.zeros((1, 4), np.float32)})[0].tolist() == [[1] * 4]


def test_a_closed_engine_does_not_run(tmp_path):
    engine = load(models.row_encoding(tmp_path))
    engine.close()
    with pytest.raises(ModelError, match="the engine is closed"):
        engine.run({"x": np.zeros((1, 4), np.float32)})


def without_external_data(folder):
    path = models.row_encoding(folder)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (folder / "weights.bin").unlink()
    return path


def written(content):
    def write(folder):
        path = folder / "model.onnx"
        path.write_bytes(content)
        return path

    return write


def too_new(folder):
    return models.save(folder / "new.onnx", [helper.make_node("Identity", ["x"], ["y"])], X, Y, opset=99)


def unknown_op(folder):
    return models.save(folder / "op.onnx", [helper.make_node("Frobnicate", ["x"], ["y"])], X, Y)


def sequence_output(folder):
    path = models.save(folder / "seq.onnx", [helper.make_node("SequenceConstruct", ["x"], ["y"])], X, Y)
    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None))
    onnx.save(model, path)
    return path


X, Y = {"x": (TensorProto.FLOAT, ["batch"])}, {"y": (TensorProto.FLOAT, ["batch"])}


@contextlib.contextmanager
def as_nobody():
    """Root may read everything."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.mark.parametrize("locked", ["file", "folder"])
def test_a_file_without_permission_says_so_in_one_line(locked, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    path = models.row_encoding(folder)
    tmp_path.chmod(0o755)
    (path if locked == "file" else folder).chmod(0)
    try:
        with as_nobody(), pytest.raises(ModelLoadError) as caught:
            load(path)
    finally:
        folder.chmod(0o755)

    assert str(caught.value) == f"{path} cannot be read: Permission denied"


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda folder: folder / "missing.onnx", "does not exist"),
        (lambda folder: folder, "is a directory, not an .onnx file"),
        (lambda folder: Path(os.devnull), "is no file"),
        (lambda folder: folder / f"{'long' * 100}.onnx", "cannot be read: File name too long"),
        (written(b""), "is empty"),
        (written(b"this is no model at all"), "cannot be loaded: Protobuf parsing failed."),
        (too_new, "Opset 99 is under development"),
        (unknown_op, "No Op registered for Frobnicate"),
        (without_external_data, "weights.bin"),
        (sequence_output, "output 'y' is of type seq(tensor(float)), but only these can be served"),
    ],
)
def test_a_file_that_cannot_be_loaded_says_why_in_one_line(build, why, tmp_path, capfd):
    path = build(tmp_path)
    with pytest.raises(ModelLoadError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert why in message
    assert "\n" not in message
    assert "onnxruntime_src" not in message
    assert capfd.readouterr() == ("", "")


def test_an_option_that_onnx_runtime_would_ignore_is_refused(tmp_path):
    path = models.row_encoding(tmp_path)
    with pytest.raises(ModelLoadError, match="unknown key 'intra_op_num_threads'"):
        load(path, session_options={"intra_op_num_threads": 2})
    with pytest.raises(ModelLoadError, match="the CPU execution provider has none"):
        load(path, provider_options={"use_tf32": False})


def test_session_options_reach_the_session(tmp_path):
    engine = load(
        models.row_encoding(tmp_path),
        intra_op_threads=2,
        session_options={"graph_optimization_level": "layout", "session.set_denormal_as_zero": True},
    )
    assert engine.intra_op_threads == 2
    assert engine.run({"x": np.zeros((1, 4), np.float32)})[0].tolist() == [[1] * 4]


@pytest.mark.parametrize("wrong", [{"device": "gpu"}, {"device_id": -1}, {"intra_op_threads": 0}])
def test_impossible_values_are_refused(wrong, tmp_path):
    with pytest.raises(ValueError, match="must be"):
        load(models.row_encoding(tmp_path), **wrong)


def test_without_onnx_runtime_the_error_names_the_extra(tmp_path, monkeypatch):
    real_import = builtins.__import__

    def without(name, *arguments, **named):
        if name == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'", name=name)
        return real_import(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModelLoadError, match=r"install redserve\[cpu\], or redserve\[gpu\]"):
        load(models.row_encoding(tmp_path))
