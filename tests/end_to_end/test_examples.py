"""Each example does what its docstring says."""

import shlex
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from redserve import demo

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
LIMIT_S = 30.0


@contextmanager
def running(name):
    """The example's address, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, str(HERE / "run_example.py"), str(port), str(EXAMPLES / f"{name}.py")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    deadline_s = time.monotonic() + LIMIT_S
    try:
        while True:
            assert process.poll() is None, f"{name} has ended"
            assert time.monotonic() < deadline_s, f"{name} does not answer"
            try:
                if httpx2.get(f"{url}/readyz").status_code != 503:
                    break
            except httpx2.ConnectError:
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(LIMIT_S)


def documented_curl_lines(name, url):
    """The `curl` lines of its docstring, for the port that it runs on here."""
    text = (EXAMPLES / f"{name}.py").read_text().split('"""')[1]
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("curl ")]
    return [line.replace("http://127.0.0.1:8000", url) for line in lines]


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_the_curl_lines_of_its_docstring_work(name):
    with running(name) as url:
        lines = documented_curl_lines(name, url)
        for line in lines:
            done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=LIMIT_S, check=False)
            assert done.returncode == 0, line
            assert done.stdout, line
    assert any("/metrics" in line for line in lines) or name == "custom_engine"


def test_middleware_only_counts_by_route_and_outcome():
    with running("middleware_only") as url:
        for number in ("7", "8", "many"):
            httpx2.get(f"{url}/square/{number}")
        metrics = httpx2.get(f"{url}/metrics").text

    ok = 'inference_requests_total{route="/square/{number}",method="GET",model="",code="200",outcome="ok"} 2'
    wrong = (
        'inference_requests_total{route="/square/{number}",method="GET",model="",code="422",outcome="client_error"} 1'
    )
    assert ok in metrics
    assert wrong in metrics


def test_batch_any_function_shows_red_and_queue_families():
    with running("batch_any_function") as url:
        for line in documented_curl_lines("batch_any_function", url):
            subprocess.run(shlex.split(line.split("|")[0]), capture_output=True, timeout=LIMIT_S, check=True)
        metrics = httpx2.get(f"{url}/metrics").text

    for family in ("requests_total", "request_latency_seconds_bucket", "batch_queue_depth", "batch_size_bucket"):
        assert f"\ninference_{family}" in metrics


def test_serve_onnx_reads_a_digit_beside_its_own_route():
    with running("serve_onnx") as url:
        answer = httpx2.post(f"{url}/predict", json={"instances": [demo.samples()[5]["pixels"]]}).json()
        labels = httpx2.get(f"{url}/labels").json()["labels"]
        metrics = httpx2.get(f"{url}/metrics").text

    assert labels[answer["predictions"][0]["label"]] == "5"
    assert 'inference_requests_total{route="/labels"' in metrics


def test_custom_engine_answers():
    with running("custom_engine") as url:
        answer = httpx2.post(f"{url}/predict", json={"instances": [[3, 4], [5, 12]]})

    assert answer.json() == {"predictions": [5.0, 13.0]}
