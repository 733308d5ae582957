"""Who may ask `redserve serve` for what, as clients and operators meet it: keys, their file, addresses, TLS."""

import hashlib
import json
import shutil
import socket
import ssl
import subprocess
import sys
import time
from urllib.parse import urlsplit

import httpx2
import pytest
from prometheus_server import PrometheusServer
from served import REDSERVE, Served

from engine.onnx_models import row_encoding

KEYS = {scope: f"the-key-for-{scope}-0123456789" for scope in ("inference", "metrics", "admin")}
PATHS = {"inference": "/predict", "metrics": "/metrics", "admin": "/docs"}
ROWS = {"instances": [[1, 2, 3, 4]]}
RIGHT = {"predictions": [[3, 5, 7, 9]]}
LIMIT_S = 20.0


@pytest.fixture
def model(tmp_path):
    return str(row_encoding(tmp_path))


@pytest.fixture
def keys_file(tmp_path):
    path = tmp_path / "keys.toml"
    hashed = "sha256:" + hashlib.sha256(KEYS["admin"].encode()).hexdigest()
    path.write_text(f'inference = ["{KEYS["inference"]}"]\nmetrics = ["{KEYS["metrics"]}"]\nadmin = ["{hashed}"]\n')
    return path


def predict(url, key):
    return httpx2.post(f"{url}/predict", json=ROWS, headers={"x-api-key": key})


def until(condition):
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s, "it never happened"
        time.sleep(0.02)


def test_each_scope_opens_with_its_key_and_a_changed_file_counts_without_a_restart(model, keys_file):
    with Served(model, "--api-keys-file", str(keys_file)) as served:
        assert "keys      inference, metrics, admin: a key needed" in served.banner
        for scope, path in PATHS.items():
            ask = {"json": ROWS} if scope == "inference" else {}
            method = "POST" if ask else "GET"
            statuses = {
                other: httpx2.request(
                    method, served.url + path, headers={"authorization": f"Bearer {key}"}, **ask
                ).status_code
                for other, key in KEYS.items()
            }
            assert statuses == {other: 200 if other == scope else 403 for other in KEYS}
            assert httpx2.request(method, served.url + path, **ask).status_code == 401
        assert httpx2.get(f"{served.url}/livez").status_code == httpx2.get(f"{served.url}/readyz").status_code == 200

        new = "a-new-key-0123456789-0123456789"
        draft = keys_file.with_suffix(".draft")
        draft.write_text(keys_file.read_text().replace(KEYS["inference"], new))
        draft.replace(keys_file)
        until(lambda: predict(served.url, new).status_code == 200)
        assert predict(served.url, KEYS["inference"]).status_code == 401

        keys_file.unlink()
        until(lambda: "API keys cannot be read again" in served.errors)
        assert predict(served.url, new).json() == RIGHT
        served.signal()
        assert served.wait() == 0
    assert "INFO    API keys were read again inference=1 metrics=1 admin=1" in served.errors
    assert served.errors.count("API keys cannot be read again") == 1
    assert not any(key in served.errors + served.banner for key in (*KEYS.values(), new))


def test_the_curl_line_works_with_a_key_from_the_environment(model):
    with Served(model, environment={"REDSERVE_INFERENCE_KEYS": KEYS["inference"]}) as served:
        assert "keys      inference: a key needed; metrics, admin: open to all" in served.banner
        answers = [
            json.loads(
                subprocess.run(
                    served.curl, shell=True, capture_output=True, check=True, timeout=30, env={"KEY": key}
                ).stdout
            )
            for key in (KEYS["inference"], KEYS["admin"])
        ]

    assert answers[0].keys() == {"predictions"}
    assert answers[1]["error"]["reason"] == "unauthorized"


@pytest.mark.parametrize(
    ("host", "environment", "words"),
    [
        (
            "127.0.0.1",
            {},
            ["keys      inference, metrics, admin: open to all", "reach     127.0.0.1: this machine only"],
        ),
        ("0.0.0.0", {}, ["warning   whoever can reach 0.0.0.0 may use this server"]),
        ("0.0.0.0", {"REDSERVE_METRICS_KEYS": KEYS["metrics"]}, ["warning   whoever can reach 0.0.0.0"]),
    ],
)
def test_the_banner_says_who_may_come_in(model, host, environment, words):
    with Served(model, "--host", host, environment=environment) as served:
        assert all(word in served.banner for word in words)


def test_the_banner_does_not_warn_of_an_address_where_inference_needs_a_key(model):
    with Served(model, "--host", "0.0.0.0", environment={"REDSERVE_INFERENCE_KEYS": KEYS["inference"]}) as served:
        assert "warning" not in served.banner
        assert "this machine only" not in served.banner


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ('inference = ["short"]', "inference[0] must have at least 16 characters"),
        (f'inference = "{KEYS["admin"]}"', "inference must be a list of keys"),
        (f'infer = ["{KEYS["admin"]}"]', "'infer' is none of inference, metrics, admin"),
        ("inference = [", "keys.toml"),
        ("", "holds no key"),
    ],
)
def test_a_wrong_key_file_ends_it_with_2_and_one_clear_line(tmp_path, content, message):
    path = tmp_path / "keys.toml"
    if content is not None:
        path.write_text(content)

    done = subprocess.run(
        [*REDSERVE, "serve", "--port", "0", "--api-keys-file", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("redserve: api_keys_file")
    assert message in line
    assert KEYS["admin"] not in line


TARGETS = [
    *("/predict", "//predict", "/%70redict", "/predict%2frow_encoding", "/predict/", "/predict;a=b", "/predict#a"),
    *("*predict", "*", "http://elsewhere/predict", "http://elsewhere//predict", "/./predict", "/livez/../predict"),
    *("/predict%00", "/livez%2f..%2fpredict", "/predict?x-api-key=" + KEYS["inference"], "predict", "elsewhere:80"),
]


@pytest.mark.parametrize("framing", ["one", "behind another"])
def test_no_request_line_gets_past_the_keys(model, framing):
    all_keys = {f"REDSERVE_{scope.upper()}_KEYS": key for scope, key in KEYS.items()}
    body = json.dumps(ROWS).encode()
    head = f"Host: test\r\nX_API_Key: {KEYS['inference']}\r\nContent-Type: application/json\r\n"
    first = b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n" if framing == "behind another" else b""
    with Served(model, environment=all_keys) as served:
        for method in ("POST", "GET", "OPTIONS", "CONNECT"):
            for target in TARGETS:
                request = (
                    f"{method} {target} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                )
                with socket.create_connection(("127.0.0.1", urlsplit(served.url).port), timeout=LIMIT_S) as client:
                    client.sendall(first + request.encode() + body)
                    answer = b"".join(iter(lambda: client.recv(65_536), b""))
                statuses = [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]
                if first:
                    assert statuses.pop(0) == 200
                assert set(statuses) <= {400, 401}, (method, target)
                assert statuses or first  # what is no HTTP may end a connection without a word after an earlier answer
        metrics = httpx2.get(f"{served.url}/metrics", headers={"x-api-key": KEYS["metrics"]}).text
    assert 'code="401",outcome="client_error"' in metrics
    assert 'outcome="ok"' not in metrics


def test_keys_are_no_flags():
    text = subprocess.run([*REDSERVE, "serve", "--help"], capture_output=True, text=True, timeout=60, check=True).stdout

    assert "--api-keys-file" in text
    assert "--inference-keys" not in text


def test_a_real_prometheus_scrapes_with_a_key(tools, tmp_path, model, keys_file):
    secret = tmp_path / "metrics.key"
    secret.write_text(KEYS["metrics"])
    folder = tmp_path / "prometheus"
    folder.mkdir()
    authorization = {"authorization": {"credentials_file": str(secret)}}
    with (
        Served(model, "--api-keys-file", str(keys_file)) as served,
        PrometheusServer(tools.prometheus, folder, scrape_settings=authorization) as prometheus,
    ):
        assert predict(served.url, KEYS["inference"]).json() == RIGHT
        prometheus.add_target("guarded", urlsplit(served.url).port)
        prometheus.wait_for_scrape("guarded")
        answered = prometheus.value('sum(inference_requests_total{job="guarded",outcome="ok"})')

    assert answered == 1


def test_plain_uvicorn_serves_keys_and_tls(tmp_path, model, keys_file):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to sign a certificate with")
    certificate, private_key = tmp_path / "certificate.pem", tmp_path / "private.pem"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
        f" -keyout {private_key} -out {certificate}".split(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        f"{sys.executable} -m uvicorn --factory redserve.server:create_app --port {port}"
        f" --ssl-keyfile {private_key} --ssl-certfile {certificate} --limit-concurrency 100".split(),
        env={"REDSERVE_MODEL": model, "REDSERVE_API_KEYS_FILE": str(keys_file)},
        stderr=subprocess.DEVNULL,
    )
    try:
        with httpx2.Client(
            base_url=f"https://127.0.0.1:{port}", verify=ssl.create_default_context(cafile=str(certificate))
        ) as client:
            until(lambda: is_ready(client))
            headers = {"x-api-key": KEYS["inference"]}
            refused = client.post("/predict", json=ROWS)
            answer = client.post("/predict", json=ROWS, headers=headers)
    finally:
        server.terminate()
        server.wait(30)
    assert refused.status_code == 401
    assert answer.json() == RIGHT


def is_ready(client):
    try:
        return client.get("/readyz").status_code == 200
    except httpx2.TransportError:
        return False
