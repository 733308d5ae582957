import ctypes

import numpy as np
import onnx_models as models
import pytest
from test_onnx_session import CPU, CUDA, FakeOnnxRuntime

from redserve.engine import onnx_runtime
from redserve.engine.onnx_options import session_settings
from redserve.engine.onnx_runtime import OnnxRuntimeEngine
from redserve.engine.onnx_session import open_session
from redserve.engine.tensorrt import profile_of, split_options, tensorrt_options
from redserve.engine.tensors import TensorSpec
from redserve.errors import ModelLoadError

TENSORRT = "TensorrtExecutionProvider"
F32 = np.dtype(np.float32)
IMAGE = TensorSpec("image", F32, ("batch", 3, 224, 224))


def test_options_that_begin_with_trt_are_of_tensorrt_and_the_rest_of_cuda():
    given = {"trt_fp16_enable": True, "use_tf32": False}
    assert split_options(given) == ({"trt_fp16_enable": True}, {"use_tf32": False})


def test_options_are_passed_as_text():
    options = tensorrt_options({"trt_fp16_enable": True}, device_id=1, inputs=[], rows=8)
    assert options == {"trt_fp16_enable": "1", "device_id": "1"}


def test_an_unknown_option_is_refused():
    with pytest.raises(ModelLoadError, match="provider_options: unknown key 'trt_speed'; allowed are trt_auxiliary"):
        tensorrt_options({"trt_speed": 11}, device_id=0, inputs=[], rows=8)


def test_the_profile_goes_from_one_row_to_the_largest_batch():
    assert profile_of([IMAGE, TensorSpec("scale", F32, ("batch", 1))], rows=16) == {
        "trt_profile_min_shapes": "image:1x3x224x224,scale:1x1",
        "trt_profile_opt_shapes": "image:16x3x224x224,scale:16x1",
        "trt_profile_max_shapes": "image:16x3x224x224,scale:16x1",
    }


def test_the_rows_that_the_model_is_tried_with_fit_the_profile():
    assert profile_of([IMAGE], rows=1)["trt_profile_max_shapes"] == "image:3x3x224x224"


@pytest.mark.parametrize("shape", [("batch", "sequence"), ("batch", None), (4, 3), ()])
def test_there_is_no_profile_where_other_sizes_are_open_or_none_is(shape):
    assert profile_of([TensorSpec("x", F32, shape)], rows=8) == {}


def test_a_profile_that_is_given_counts():
    given = {"trt_profile_min_shapes": "image:2x3x224x224"}
    assert tensorrt_options(given, device_id=0, inputs=[IMAGE], rows=8) == {**given, "device_id": "0"}


@pytest.fixture
def driver(monkeypatch):
    """An NVIDIA driver that can be loaded."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)


def open_on_tensorrt(ort, path):
    path.write_bytes(b"anything")
    return open_session(
        lambda: ort,
        path,
        device="tensorrt",
        threads=None,
        settings=session_settings({}),
        cuda={"device_id": "0"},
        tensorrt={"trt_fp16_enable": "1"},
    )


def test_cuda_does_what_tensorrt_does_not_take(driver, tmp_path):
    ort = FakeOnnxRuntime(available=(TENSORRT, CUDA, CPU), comes_up=(TENSORRT, CUDA, CPU))
    assert open_on_tensorrt(ort, tmp_path / "model.onnx").session.get_providers()[0] == TENSORRT
    ((_, providers, fallback),) = ort.opened
    assert providers == [(TENSORRT, {"trt_fp16_enable": "1"}), (CUDA, {"device_id": "0"}), CPU]
    assert fallback == 0


@pytest.mark.parametrize(
    ("ort", "why"),
    [
        (FakeOnnxRuntime(), "this build of ONNX Runtime has no TensorRT"),
        (
            FakeOnnxRuntime(available=(TENSORRT, CUDA, CPU)),
            "TensorRT did not come up: ONNX Runtime does not say why; inst",
        ),
        (
            FakeOnnxRuntime(available=(TENSORRT, CUDA, CPU), cuda_error=RuntimeError("no nvinfer")),
            "on TensorRT .* cannot be loaded: no nvinfer",
        ),
    ],
)
def test_tensorrt_is_refused_and_says_why(ort, why, driver, tmp_path):
    with pytest.raises(ModelLoadError, match=f"^device=tensorrt, but {why}"):
        open_on_tensorrt(ort, tmp_path / "model.onnx")


def test_the_profile_is_made_from_the_file(tmp_path, monkeypatch):
    told, real = [], onnx_runtime.open_session

    def note(*arguments, tensorrt=None, **options):
        told.append(tensorrt)
        return real(*arguments, **options, tensorrt=tensorrt)

    monkeypatch.setattr(onnx_runtime, "open_session", note)
    with pytest.raises(ModelLoadError, match="device=tensorrt, but "):
        OnnxRuntimeEngine.load(models.row_encoding(tmp_path), device="tensorrt", largest_batch=8)
    assert told[-1]["trt_profile_max_shapes"] == "x:8x4"


def test_graphs_are_not_for_tensorrt(tmp_path):
    with pytest.raises(ModelLoadError, match="cuda_graphs: they are of the CUDA execution provider"):
        OnnxRuntimeEngine.load(models.row_encoding(tmp_path), device="tensorrt", cuda_graphs=True)
