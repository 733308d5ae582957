"""The contracts of managed platforms over HTTP: `redserve serve` as a process in the platform's environment alone."""

import io
import json
import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager

import httpx2
import numpy as np
import pytest
from served import REDSERVE

from engine.onnx_models import row_encoding

ROWS = {"instances": [[1, 2, 3, 4]]}
RIGHT = {"predictions": [[3, 5, 7, 9]]}
VERTEX_OWN = "/v1/endpoints/12/deployedModels/34:predict"
LIMIT_S = 60.0
OTHER_ADDRESS = "127.0.0.2"
"""Of this machine too; whoever listens on 127.0.0.1 only does not answer there."""


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("0.0.0.0", 0))
        return free.getsockname()[1]


@pytest.fixture
def model_folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    row_encoding(folder)
    return folder


@contextmanager
def container(environment, *arguments, port, health):
    """Its address, once `health` answers 200; it ends by SIGTERM, with 0."""
    process = subprocess.Popen(
        [*REDSERVE, *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    url = f"http://{OTHER_ADDRESS}:{port}"
    deadline_s = time.monotonic() + LIMIT_S
    try:
        while not is_well(url + health):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline_s, "it never became healthy"
            time.sleep(0.05)
        yield url
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, errors
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def is_well(url):
    try:
        answer = httpx2.get(url)
    except httpx2.ConnectError:
        return False
    assert answer.status_code in (200, 503), answer.text
    return answer.status_code == 200


def counted(url, route):
    """The counts of POST requests of this route, by their codes."""
    lines = httpx2.get(f"{url}/metrics").text.splitlines()
    start = f'inference_requests_total{{route="{route}",method="POST",model="row_encoding",code="'
    return {line[len(start) :][:3]: float(line.rpartition(" ")[2]) for line in lines if line.startswith(start)}


def test_sagemaker(model_folder, port):
    """Amazon SageMaker AI Developer Guide, "Custom Inference Code with Hosting Services".

    `docker run IMAGE serve`, the model below /opt/ml/model; POST /invocations, GET /ping with 200 and an empty body;
    "Inference containers must be able to safely ignore these additional headers".
    """
    environment = {
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "SAGEMAKER_SAFE_PORT_RANGE": "20000-20999",
        "SAGEMAKER_BASE_DIR": str(model_folder.parent),
        "REDSERVE_PLATFORM": "sagemaker",  # of the container definition, where no argument can be added
    }
    with container(environment, "serve", port=port, health="/ping") as url:
        ping = httpx2.get(f"{url}/ping")
        extra = {"x-amzn-sagemaker-custom-attributes": "trace=1", "accept": "*/*"}
        answer = httpx2.post(f"{url}/invocations", json=ROWS, headers=extra)
        file = io.BytesIO()
        np.save(file, np.array(ROWS["instances"], np.float32))
        npy = httpx2.post(f"{url}/invocations", content=file.getvalue(), headers={"content-type": "application/x-npy"})
        wrong = httpx2.post(f"{url}/invocations", content=b"1,2,3", headers={"content-type": "text/csv"})
        counts = counted(url, "/invocations")

    assert (ping.status_code, ping.content) == (200, b"")
    assert (answer.status_code, answer.json()) == (200, RIGHT)
    assert answer.headers["content-type"] == "application/json"
    assert np.load(io.BytesIO(npy.content)).tolist() == RIGHT["predictions"]
    assert wrong.status_code == 415
    assert counts == {"200": 2, "415": 1}


@pytest.mark.parametrize(("predict", "health"), [("/run", "/well"), (VERTEX_OWN, VERTEX_OWN)])
def test_vertex(tmp_path, port, predict, health):
    """Google Cloud, "Custom container requirements", and `ModelContainerSpec`, whose two routes default to one path.

    GET for health is answered 200; POST of {"instances": [...], "parameters": {...}} with {"predictions": [...]}, one
    for each instance and in their order; 1.5 MB at most.
    """
    environment = {
        "AIP_MODE": "PREDICTION",
        "AIP_HTTP_PORT": str(port),
        "AIP_PREDICT_ROUTE": predict,
        "AIP_HEALTH_ROUTE": health,
        "AIP_STORAGE_URI": "gs://bucket/not-downloaded",
        "AIP_ENDPOINT_ID": "12",
        "AIP_DEPLOYED_MODEL_ID": "34",
    }
    model = str(row_encoding(tmp_path, columns=300))
    rows = [[number, *[0.25] * 299] for number in range(800)]
    body = json.dumps({"instances": rows, "parameters": {"confidence": 0.5}}).encode()
    with container(environment, "serve", model, "--platform", "vertex", port=port, health=health) as url:
        answer = httpx2.post(url + predict, content=body, headers={"content-type": "application/json"}, timeout=LIMIT_S)
        counts = counted(url, predict)

    assert 1_400_000 < len(body) < 1_500_000
    assert answer.status_code == 200
    assert answer.json() == {"predictions": [[2 * row[0] + 1, *[1.5] * 299] for row in rows]}
    assert counts == {"200": 1}


def test_azureml(model_folder, port):
    """Microsoft Learn, "Use a custom container to deploy a model to an online endpoint": a liveness route, "whether the
    server is running", a readiness route, "only after the model is loaded", and a scoring route; the model is mounted.
    """
    environment = {"AZUREML_MODEL_DIR": str(model_folder.parent), "REDSERVE_PORT": str(port)}
    with container(environment, "serve", "--platform", "azureml", port=port, health="/readyz") as url:
        live = httpx2.get(url)
        answer = httpx2.post(f"{url}/score", json=ROWS)
        counts = counted(url, "/score")

    assert (live.status_code, live.content) == (200, b"")
    assert (answer.status_code, answer.json()) == (200, RIGHT)
    assert counts == {"200": 1}


@pytest.mark.parametrize(
    ("platform", "environment", "message"),
    [
        ("sagemaker", {"SAGEMAKER_BASE_DIR": "/nowhere"}, "there is no .onnx file in /nowhere/model"),
        ("sagemaker", {"SAGEMAKER_BIND_TO_PORT": "http"}, "SAGEMAKER_BIND_TO_PORT='http' is no port"),
        ("vertex", {}, "AIP_HTTP_PORT is not set"),
        ("azureml", {}, "AZUREML_MODEL_DIR is not set"),
        ("aws", {}, "'sagemaker', 'vertex' or 'azureml'"),
    ],
)
def test_a_wrong_environment_ends_it_with_2_and_one_clear_line(platform, environment, message):
    done = subprocess.run(
        [*REDSERVE, "serve", "--platform", platform],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )

    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("redserve: platform")
    assert message in line
