"""Which device comes up, and what is said when it does not; ONNX Runtime is played by `FakeOnnxRuntime`."""

import ctypes

import pytest

from redserve.engine.onnx_options import session_settings
from redserve.engine.onnx_session import one_line, open_session
from redserve.errors import ModelLoadError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class FakeSession:
    def __init__(self, providers):
        self.providers = providers

    def get_providers(self):
        return self.providers


class FakeSessionOptions:
    def __init__(self):
        self.config = {}

    def add_session_config_entry(self, key, value):
        self.config[key] = value


class FakeOnnxRuntime:
    """The parts of `onnxruntime` that opening a session touches; a CUDA session says it is on `comes_up`."""

    __file__ = "onnxruntime/__init__.py"
    SessionOptions = FakeSessionOptions

    class GraphOptimizationLevel:
        ORT_ENABLE_ALL = "everything"

    class ExecutionMode:
        ORT_SEQUENTIAL = "in order"

    def __init__(self, *, available=(CUDA, CPU), comes_up=(CUDA, CPU), prints="", cuda_error=None):
        self.available, self.comes_up, self.prints, self.cuda_error = available, comes_up, prints, cuda_error
        self.opened = []
        self.preloaded = False
        self.severities = []

    def get_available_providers(self):
        return list(self.available)

    def preload_dlls(self):
        self.preloaded = True
        print(self.prints)  # noqa: T201 (as the real one does)

    def set_default_logger_severity(self, severity):
        self.severities.append(severity)

    def InferenceSession(self, path, options, *, providers, enable_fallback):  # noqa: N802 (its name)
        self.opened.append((options, providers, enable_fallback))
        if providers == [CPU]:
            return FakeSession([CPU])
        if self.cuda_error:
            raise self.cuda_error
        return FakeSession(list(self.comes_up))


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"anything")
    return path


@pytest.fixture
def driver(monkeypatch):
    """An NVIDIA driver that can be loaded."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)


def open_on(ort, path, device, *, threads=None, cuda=None):
    cuda = {"device_id": "0"} if cuda is None else cuda
    return open_session(lambda: ort, path, device=device, threads=threads, settings=session_settings({}), cuda=cuda)


def test_the_cpu_is_used_without_a_word_when_asked_for(model):
    ort = FakeOnnxRuntime()
    opened = open_on(ort, model, "cpu", threads=3)
    assert (opened.session.get_providers(), opened.note, opened.threads) == ([CPU], "", 3)
    assert not ort.preloaded


def test_the_gpu_is_used_where_it_comes_up(model, driver):
    ort = FakeOnnxRuntime()
    opened = open_on(ort, model, "auto")
    assert (opened.session.get_providers()[0], opened.note, opened.threads) == (CUDA, "", 1)
    assert ort.preloaded
    assert [providers for _, providers, _ in ort.opened] == [[(CUDA, {"device_id": "0"}), CPU]]


def test_nothing_may_fall_back_in_silence(model, driver):
    ort = FakeOnnxRuntime(comes_up=[CPU])
    open_on(ort, model, "auto")
    assert [fallback for _, _, fallback in ort.opened] == [0, 0]


def test_the_session_gets_its_settings(model):
    ort = FakeOnnxRuntime()
    open_on(ort, model, "cpu", threads=2)
    options = ort.opened[0][0]
    assert options.intra_op_num_threads == 2
    assert (options.graph_optimization_level, options.execution_mode) == ("everything", "in order")
    assert options.config["session.intra_op.allow_spinning"] == "0"


def no_driver(name):
    raise OSError(f"{name}: cannot open shared object file")


def half_a_driver(name):
    if "providers_cuda" in name:
        raise OSError(f"{name}: undefined symbol: cuInit")


WHY_NOT = [
    (FakeOnnxRuntime(available=[CPU]), None, "install redserve[gpu] in place of redserve[cpu]"),
    (FakeOnnxRuntime(), no_driver, "no NVIDIA driver is found (libcuda.so.1: cannot open shared object file)"),
    (FakeOnnxRuntime(comes_up=[CPU], prints="Failed to load libcublas.so.13: no such file"), None, "libcublas.so.13"),
    (FakeOnnxRuntime(comes_up=[CPU]), half_a_driver, "up: libonnxruntime_providers_cuda.so: undefined symbol: cuInit"),
    (FakeOnnxRuntime(comes_up=[CPU]), None, "ONNX Runtime does not say why"),
    (FakeOnnxRuntime(cuda_error=RuntimeError("CUDA failure 2: out of memory")), None, "CUDA failure 2: out of memory"),
]


@pytest.mark.parametrize(("ort", "load", "why"), WHY_NOT)
def test_auto_takes_the_cpu_and_says_why(ort, load, why, model, driver, monkeypatch, capfd):
    if load:
        monkeypatch.setattr(ctypes, "CDLL", load)
    opened = open_on(ort, model, "auto")
    assert opened.session.get_providers() == [CPU]
    assert why in opened.note
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("ort", "load", "why"), WHY_NOT)
def test_cuda_is_refused_and_says_why(ort, load, why, model, driver, monkeypatch):
    if load:
        monkeypatch.setattr(ctypes, "CDLL", load)
    with pytest.raises(ModelLoadError, match=r"^device=cuda, but ") as caught:
        open_on(ort, model, "cuda")
    assert why in str(caught.value)


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_model_that_cuda_cannot_capture_is_refused_rather_than_served_on_the_cpu(device, model, driver):
    ort = FakeOnnxRuntime(cuda_error=RuntimeError("the model has control flow nodes which can't be supported"))
    with pytest.raises(
        ModelLoadError, match=r"^cuda_graphs: .*model.onnx cannot be loaded: the model has control flow"
    ):
        open_on(ort, model, device, cuda={"device_id": "0", "enable_cuda_graph": "1"})
    assert ort.severities == [4, 2]


def test_without_a_gpu_graphs_are_no_obstacle(model, driver):
    opened = open_on(FakeOnnxRuntime(available=[CPU]), model, "auto", cuda={"enable_cuda_graph": "1"})
    assert "has no CUDA" in opened.note


def test_the_runtime_s_log_is_as_loud_as_before(model, driver):
    ort = FakeOnnxRuntime(cuda_error=RuntimeError("no"))
    open_on(ort, model, "auto")
    assert ort.severities == [4, 2]


@pytest.mark.parametrize(("name", "why"), [("missing.onnx", "does not exist"), (".", "is a directory")])
def test_a_path_without_a_file_is_refused_before_the_runtime_is_imported(name, why, tmp_path):
    def never():
        raise AssertionError

    with pytest.raises(ModelLoadError, match=why):
        open_session(never, tmp_path / name, device="cpu", threads=1, settings=session_settings({}), cuda={})


def test_a_message_becomes_one_line_for_people():
    text = (
        "[ONNXRuntimeError] : 1 : FAIL : Load model from a.onnx failed:"
        "/onnxruntime_src/onnxruntime/core/graph/model.cc:1 onnxruntime::Model::Model(onnx::ModelProto&&, "
        "const std::function<void(int)>&) Unsupported model\nIR version: 99"
    )
    assert one_line(RuntimeError(text)) == "Unsupported model IR version: 99"


def test_a_long_message_is_cut():
    assert len(one_line(RuntimeError("x" * 1000))) == 400


@pytest.mark.timeout(10)
def test_a_message_that_quotes_a_long_text_costs_no_time():
    assert len(one_line(RuntimeError("x" * 1_000_000))) == 400
