"""Schemathesis reads `/openapi.json` of the real server and holds it to that: examples, boundary values, noise.

It runs as the process that users run; its pytest plugin needs a private attribute that pytest 9.2 does not have.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import httpx2
import pytest

from end_to_end.open_inference_published import published
from engine.onnx_models import adding, text, two_outputs_renamed
from redserve.server import Settings, create_app
from redserve.server.http_limits import HttpLimits
from redserve.server.http_protocol import HttpProtocol

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
LIMIT_S = 20.0
KEY = "a-key-that-opens-inference"
NOT_V2 = ("--exclude-path-regex", "^/v2")
CONFIGURATION = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 503, 504]  # it may ask for an answer within a nanosecond
"""


@pytest.fixture
def hold_to_contract(serve, registry, tmp_path):
    """`hold_to_contract(settings, *arguments)`: how often each status was answered meanwhile."""

    def hold(settings, *arguments, described=None):
        app = create_app(Settings.load(settings), registry=registry)
        live = serve(app, http=partial(HttpProtocol, limits=HttpLimits(), door=app.state.redserve.fast_door))
        deadline_s = time.monotonic() + LIMIT_S
        while httpx2.get(f"{live.url}/readyz").status_code != 200:
            assert time.monotonic() < deadline_s, "it never came up"
            time.sleep(0.01)
        (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
        command = [SCHEMATHESIS, "--config-file", "schemathesis.toml", "run"]
        if described is None:
            command.append(f"{live.url}/openapi.json")
        else:
            (tmp_path / "described.json").write_text(json.dumps(described))
            command += ["described.json", "--url", live.url]
        command += ["--generation-deterministic", "--max-examples", "20", *arguments]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
        return statuses(registry, "/predict" if NOT_V2[0] in arguments else "/v2")

    return hold


def statuses(registry, prefix):
    counts: Counter[int] = Counter()
    for family in registry.collect():
        for sample in family.samples:
            if sample.name == "inference_requests_total" and sample.labels["route"].startswith(prefix):
                counts[int(sample.labels["code"])] += int(sample.value)
    return counts


def test_the_demo_keeps_its_contract(hold_to_contract):
    seen = hold_to_contract({}, *NOT_V2)

    assert seen[200] > 20
    assert seen[400] > 10
    assert seen[405] > 10
    assert seen[500] == 0


def test_a_model_of_two_inputs_keeps_what_a_schema_can_say(hold_to_contract, tmp_path):
    """A schema cannot ask for two lists of the same length, and calls 1.0 an integer."""
    model = two_outputs_renamed(tmp_path)
    seen = hold_to_contract({"model": model}, *NOT_V2, "--exclude-checks", "positive_data_acceptance")

    assert seen[200] > 20
    assert seen[400] > 10
    assert seen[500] == 0


def test_a_model_of_text_behind_a_key_keeps_its_contract(hold_to_contract, tmp_path):
    settings = {"model": text(tmp_path), "inference_keys": KEY}
    seen = hold_to_contract(settings, *NOT_V2, "--header", f"X-API-Key: {KEY}")

    assert seen[200] > 20
    assert seen[401] > 1
    assert seen[500] == 0


def test_the_open_inference_protocol_keeps_what_its_schema_can_say(hold_to_contract):
    """A schema cannot say that data fills a shape, nor which shape and datatype go with which name."""
    seen = hold_to_contract({}, "--include-path-regex", "^/v2", "--exclude-checks", "positive_data_acceptance")

    assert seen[200] > 20
    assert seen[400] > 10
    assert seen[405] > 10
    assert seen[500] == 0


def test_what_is_published_of_the_protocol_holds(hold_to_contract):
    """It names no status but 200 and 400, and says less than a model asks for."""
    excluded = "positive_data_acceptance,negative_data_rejection,status_code_conformance,unsupported_method"
    seen = hold_to_contract({}, "--exclude-checks", excluded, described=published(model="digits", version="1"))

    assert seen[200] > 5
    assert seen[400] > 10
    assert seen[500] == 0


def test_the_repository_keeps_its_contract_while_models_come_and_go(hold_to_contract, tmp_path):
    repository = tmp_path / "models"
    repository.mkdir()
    adding(repository / "adding.onnx", 1)
    settings = {"repository": repository, "repository_mode": "explicit", "load_models": "adding"}
    seen = hold_to_contract(settings, "--include-path-regex", "^/v2/repository")

    assert seen[200] > 5
    assert seen[400] > 10
    assert seen[500] == 0
