"""What must hold for a figure of a GPU to be one: right answers, one failure that costs one figure, and its device."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from gpu.bodies import FORMS, answer_of, request_of
from gpu.curves import ceiling_of
from gpu.measurement import Measurement
from gpu.timing import percentiles
from gpu.workloads import Workload, WrongAnswer, workloads


@pytest.fixture
def measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Measurement:
    arguments = ["--device", "cpu", "--models", str(tmp_path), "--out", str(tmp_path / "out"), "--quick"]
    monkeypatch.setattr("sys.argv", ["curves.py", *arguments])
    return Measurement("somewhere/curves.py", "How fast?\n\nBy looking.")


@pytest.fixture
def workload() -> Workload:
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    return Workload("sums", "fp32", Path("sums.onnx"), {"x": rows}, rows.sum(axis=1, keepdims=True))


def result_of(measurement: Measurement) -> dict[str, object]:
    return json.loads((measurement.options.out / "curves.json").read_text())


def test_a_result_says_what_it_was_measured_on_and_with(measurement: Measurement) -> None:
    measurement.cell("one", lambda: {"rows_per_s": 3})

    result = result_of(measurement)
    assert result["question"] == "How fast?"
    assert result["device"]["kind"] == "cpu"
    assert result["device"]["name"]
    assert {"redserve", "numpy", "onnxruntime"} <= result["versions"].keys()
    assert measurement.end() == 0


def test_what_fails_is_written_down_and_costs_nothing_else(measurement: Measurement) -> None:
    def fail() -> dict[str, int]:
        raise RuntimeError("out of memory")

    measurement.cell("first", fail)
    measurement.cell("second", lambda: {"rows_per_s": 3})

    cells = result_of(measurement)["cells"]
    assert cells["first"]["error"] == "RuntimeError: out of memory"
    assert cells["second"] == {"rows_per_s": 3}
    assert measurement.end() == 1


def test_what_would_be_late_if_it_took_as_long_as_the_longest_is_not_begun(measurement: Measurement) -> None:
    measurement._longest_s = measurement.left_s + 60

    measurement.cell("late", partial(pytest.fail, "it was begun"))

    assert result_of(measurement)["cells"] == {"late": {"skipped": "no time was left"}}
    assert measurement.end() == 1, "nothing was measured"


def test_rows_are_given_over_and_over_and_each_answer_is_compared(workload: Workload) -> None:
    rows = workload.rows(7)["x"]

    assert rows.shape == (7, 2)
    assert workload.error_ratio(rows.sum(axis=1, keepdims=True)) == 0
    wrong = rows.sum(axis=1, keepdims=True)
    wrong[6] += 0.01
    for found in (wrong, wrong[:, 0], np.full((7, 1), np.nan)):
        with pytest.raises(WrongAnswer, match=r"sums\.fp32"):
            workload.error_ratio(found)


def test_a_folder_without_models_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"python -m gpu\.prepare"):
        workloads(tmp_path, "cpu")


def test_single_precision_on_tensor_cores_is_there_on_a_gpu_only(tmp_path: Path) -> None:
    np.savez(tmp_path / "mlp.npz", x=np.ones((1, 2)), right=np.ones((1, 2)))
    for precision in ("fp16", "fp32"):
        (tmp_path / f"mlp.{precision}.onnx").touch()

    found = {device: {one.precision: one for one in workloads(tmp_path, device)} for device in ("cpu", "cuda")}

    assert sorted(found["cpu"]) == ["fp16", "fp32"]
    assert sorted(found["cuda"]) == ["fp16", "fp32", "tf32"]
    options = {name: one.provider_options("cuda") for name, one in found["cuda"].items()}
    assert options == {"fp16": {"use_tf32": "0"}, "fp32": {"use_tf32": "0"}, "tf32": {"use_tf32": "1"}}
    assert found["cpu"]["fp32"].provider_options("cpu") == {}


@pytest.mark.parametrize("form", FORMS)
def test_a_request_says_how_long_it_is(form: str, workload: Workload) -> None:
    head, _, body = request_of(form, workload.title, workload.rows(2)).partition(b"\r\n\r\n")

    assert int(head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]) == len(body)


def test_an_answer_is_read_in_either_form() -> None:
    values = np.array([[1, 2], [3, 4]], np.float32)
    description = json.dumps({"outputs": [{"name": "y", "shape": [2, 2]}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(description))}

    assert answer_of("binary", headers, description + values.tobytes()).tolist() == values.tolist()
    assert answer_of("json", {}, b'{"outputs":{"y":[[1,2],[3,4]]}}').tolist() == values.tolist()


def test_the_ceiling_is_the_most_rows_a_second_at_the_smallest_batch_that_is_near_it() -> None:
    points = [
        {"rows": rows, "rows_per_s": {"host": rate}} for rows, rate in ((1, 10.0), (2, 99.0), (4, 100.0), (8, 90.0))
    ]

    assert ceiling_of(points) == {"rows": 2, "rows_per_s": 100.0}


def test_percentiles_are_those_of_the_nearest_rank() -> None:
    assert percentiles([0.001 * number for number in range(100, 0, -1)]) == {"p50_ms": 50.0, "p99_ms": 99.0}
