"""The real `onnxruntime-gpu` where there is no GPU: nothing runs on another device than asked for without saying so.

`.ci/run gpu-wheel` runs these; where the CPU's package is installed, or a driver is, they are skipped.
"""

import ctypes
import importlib.metadata
import shutil
import subprocess
from pathlib import Path

import httpx2
import pytest
from served import REDSERVE, Served

from redserve import demo

NO_DRIVER = "no NVIDIA driver is found (libcuda.so.1: cannot open shared object file: No such file or directory)"
STRANGE_DRIVER = "CUDA did not come up: libonnxruntime_providers_cuda.so: undefined symbol: cu"


def why_not() -> str:
    """Why these cannot be run here; empty if they can."""
    try:
        importlib.metadata.distribution("onnxruntime-gpu")
    except importlib.metadata.PackageNotFoundError:
        return "onnxruntime-gpu is not installed: see .ci/run gpu-wheel"
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ""
    return "there is an NVIDIA driver here"


pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.fixture(params=["no driver", "strange driver"])
def machine(request, tmp_path):
    """Environment variables of a machine without a GPU, and what is wrong with it."""
    if request.param == "no driver":
        return {}, NO_DRIVER
    import onnxruntime

    some_library = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_shared.so"
    shutil.copy(some_library, tmp_path / "libcuda.so.1")
    return {"LD_LIBRARY_PATH": str(tmp_path)}, STRANGE_DRIVER


def start_on(device, environment, *command):
    return subprocess.run(
        [*REDSERVE, *command, "--device", device],
        env={"PATH": "", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_server_that_has_to_have_a_gpu_refuses_to_start_and_says_what_is_missing(machine):
    environment, wrong = machine
    ended = start_on("cuda", environment, "serve", "--port", "0")

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert f"redserve: model 'digits' cannot be served: device=cuda, but {wrong}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "onnxruntime_src" not in ended.stderr, "what ONNX Runtime logs is said by the message"


def test_a_look_at_a_model_on_a_gpu_that_is_not_there_says_the_same(machine):
    environment, wrong = machine
    ended = start_on("cuda", environment, "inspect", str(demo.path()))

    assert ended.returncode == 1
    assert f"device=cuda, but {wrong}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_server_that_has_to_have_tensorrt_refuses_to_start_without_it(machine):
    environment, _ = machine
    ended = start_on("tensorrt", environment, "serve", "--port", "0")

    assert ended.returncode == 1
    assert "device=tensorrt, but " in ended.stderr
    assert (NO_DRIVER if not environment else "install TensorRT libraries") in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_server_that_may_do_without_serves_on_the_cpu_and_says_so_everywhere(machine):
    environment, wrong = machine
    sample = demo.samples()[7]
    with Served("--device", "auto", environment=environment) as served:
        answer = httpx2.post(f"{served.url}/predict", json={"instances": [sample["pixels"]]})
        ready = httpx2.get(f"{served.url}/readyz")
        metrics = httpx2.get(f"{served.url}/metrics").text

        assert f"  provider  CPUExecutionProvider ({wrong}" in served.banner
        assert answer.json()["predictions"][0]["label"] == sample["label"]
        assert ready.json() == {"status": "ready", "providers": {"digits": "CPUExecutionProvider"}}
        assert 'inference_model_info{model="digits",version="1",provider="CPUExecutionProvider",' in metrics
        assert "CUDAExecutionProvider" not in metrics
        assert "onnxruntime_src" not in served.errors


def test_of_many_models_the_start_up_lines_say_where_each_runs(machine, tmp_path):
    environment, wrong = machine
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("a", "b", "c"):
        shutil.copy(demo.path(), folder / f"{name}.onnx")
    with Served("--repository", str(folder), environment=environment) as served:
        providers = httpx2.get(f"{served.url}/readyz").json()["providers"]

        assert served.banner.count(f", version 1: CPUExecutionProvider ({wrong}") == 3
        assert providers == dict.fromkeys(("a", "b", "c"), "CPUExecutionProvider")
