"""`redserve serve --repository` and `redserve check` as a user meets them: real files that come, change and go."""

import asyncio
import itertools
import re
import shutil
import subprocess
import time
from collections.abc import Callable

import httpx2
import pytest
from served import REDSERVE, Served
from swaps import put, resident_bytes, swap

from engine.onnx_models import adding, heavy, row_encoding, token_sum

LIMIT_S = 60.0
POLL = ("--repository-mode", "poll", "--poll-s", "0.05")
EXPLICIT = ("--repository-mode", "explicit")


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s, "it never came to be"
        time.sleep(0.02)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*REDSERVE, *arguments], capture_output=True, text=True, timeout=60, check=False)


def added(served: Served, name: str, *, version: str = "") -> float | int:
    """What the model adds; or the status, where it does not."""
    path = f"/v2/models/{name}/versions/{version}/infer" if version else f"/v2/models/{name}/infer"
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [0, 0, 0]}
    answer = httpx2.post(f"{served.url}{path}", json={"inputs": [tensor]})
    return float(answer.json()["outputs"][0]["data"][0]) if answer.status_code == 200 else answer.status_code


def index(served: Served) -> dict[tuple[str, str], str]:
    rows = httpx2.post(f"{served.url}/v2/repository/index").json()
    return {(row["name"], row.get("version", "")): row.get("state", "") for row in rows}


def reason(served: Served, name: str, version: str) -> str:
    rows = httpx2.post(f"{served.url}/v2/repository/index").json()
    return next(str(row["reason"]) for row in rows if (row["name"], row.get("version")) == (name, version))


def ready_series(served: Served) -> set[str]:
    text = httpx2.get(f"{served.url}/metrics").text
    return {line for line in text.splitlines() if line.startswith("inference_model_ready{")}


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def test_versions_are_swapped_under_load_without_a_failed_or_a_mixed_answer(repository):
    put(repository, "adding", 1)
    with Served("--repository", str(repository), *POLL) as served:
        load = asyncio.run(swap(served, repository, swaps=20, rate=200))
        until(lambda: index(served) == {("adding", "21"): "READY"})

        assert load.wrong == []
        assert load.statuses.keys() == {200}
        assert load.seen == 21
        assert load.statuses.total() > 100
        assert ready_series(served) == {'inference_model_ready{model="adding",version="21"} 1'}


def test_models_that_are_added_changed_and_removed_are_noticed(repository):
    put(repository, "adding", 1)
    with Served("--repository", str(repository), *POLL) as served:
        assert added(served, "adding") == 1
        adding(repository / "plain.onnx", 7)
        until(lambda: added(served, "plain") == 7)
        adding(repository / "plain.onnx.new", 8).replace(repository / "plain.onnx")
        until(lambda: added(served, "plain") == 8)
        (repository / "plain.onnx").unlink()
        until(lambda: added(served, "plain") == 404)
        put(repository, "adding", 2)
        until(lambda: added(served, "adding") == 2)
        assert added(served, "adding", version="1") == 404
        shutil.rmtree(repository / "adding" / "2")
        until(lambda: added(served, "adding") == 1)
        (repository / "adding" / "config.toml").write_text('versions = "all"\n')
        put(repository, "adding", 3)
        until(lambda: added(served, "adding", version="3") == 3)

        assert added(served, "adding", version="1") == 1
        assert httpx2.get(f"{served.url}/v2/models/adding").json()["versions"] == ["1", "3"]
        assert httpx2.get(f"{served.url}/readyz").status_code == 200


def test_what_cannot_be_loaded_leaves_the_old_version_and_the_server_ready(repository):
    put(repository, "adding", 1)
    with Served("--repository", str(repository), *POLL) as served:
        broken = repository / "adding" / "2" / "model.onnx"
        broken.parent.mkdir()
        broken.write_bytes(b"no model")
        until(lambda: index(served).get(("adding", "2")) == "UNAVAILABLE")

        assert "Protobuf parsing failed" in reason(served, "adding", "2")
        assert added(served, "adding") == 1
        assert httpx2.get(f"{served.url}/readyz").status_code == 200
        assert httpx2.get(f"{served.url}/v2/models/adding/ready").status_code == 200

        config = repository / "adding" / "config.toml"
        config.write_text("max_batch = 3\n")
        until(lambda: ("adding", "") in index(served))
        assert f"{config}: max_batch: unknown key" in reason(served, "adding", "")
        assert added(served, "adding") == 1


def test_models_are_loaded_and_unloaded_by_request_with_an_admin_key(repository):
    put(repository, "one", 1)
    put(repository, "two", 2)
    keys = {"REDSERVE_ADMIN_KEYS": "a" * 32, "REDSERVE_INFERENCE_KEYS": "i" * 32}
    arguments = ("--repository", str(repository), *EXPLICIT, "--load-models", "one")
    with Served(*arguments, environment=keys) as served:
        client = httpx2.Client(base_url=f"{served.url}/v2/repository", headers={"X-API-Key": "a" * 32})
        clients = httpx2.Client(base_url=f"{served.url}/v2", headers={"X-API-Key": "i" * 32})

        assert clients.post("/repository/models/two/load").status_code == 403
        assert clients.get("/models/two").status_code == 404
        assert client.post("/models/two/load", json={"parameters": {"config": "{}"}}).status_code == 400
        assert client.post("/models/two/load").status_code == 200
        assert clients.get("/models/two/ready").status_code == 200
        assert client.post("/models/one/unload", json={"parameters": {"unload_dependents": False}}).status_code == 200
        assert clients.get("/models/one").status_code == 404
        assert client.post("/models/one/unload").status_code == 404
        assert client.post("/models/three/load").status_code == 404
        for name in ("%2e%2e", "a%2Fb", "%20one", "one%00"):
            answer = client.post(f"/models/{name}/load")
            assert answer.status_code in (400, 404), name
            assert isinstance(answer.json()["error"], str)
        (repository / "two" / "1").mkdir()
        (repository / "two" / "3").mkdir()
        (repository / "two" / "3" / "model.onnx").write_bytes(b"no model")
        failed = client.post("/models/two/load")
        assert failed.status_code == 500
        assert "failed to load 'two': version 3: " in failed.json()["error"]
        assert clients.get("/models/two/ready").status_code == 200
        client.close()
        clients.close()


def test_unloading_gives_the_memory_back(repository):
    (repository / "heavy" / "1").mkdir(parents=True)
    size_bytes = heavy(repository / "heavy" / "1" / "model.onnx").stat().st_size
    assert size_bytes > 60 * 2**20
    (repository / "heavy" / "config.toml").write_text("max_batch_size = 2\n")
    put(repository, "adding", 1)
    with Served("--repository", str(repository), *EXPLICIT, "--load-models", "adding") as served:
        assert "warning   whoever may use this server may load and unload models" in served.banner
        pid = served.process.pid
        empty = resident_bytes(pid)
        for _ in range(3):
            assert httpx2.post(f"{served.url}/v2/repository/models/heavy/load", timeout=60).status_code == 200
            loaded = resident_bytes(pid)
            assert loaded - empty > 0.9 * size_bytes
            assert httpx2.post(f"{served.url}/v2/repository/models/heavy/unload").status_code == 200
            until(lambda: index(served)["heavy", ""] == "")
            until(lambda: resident_bytes(pid) - empty < 0.4 * size_bytes)


def test_a_model_is_served_as_its_configuration_says(repository):
    row_encoding(repository)
    (repository / "named" / "4").mkdir(parents=True)
    shutil.move(repository / "row_encoding.onnx", repository / "named" / "4" / "model.onnx")
    (repository / "named" / "names.txt").write_text("zero\none\ntwo\nthree\n")
    (repository / "named" / "config.toml").write_text(
        'max_batch_size = 3\ninstances = 2\nrequest_timeout_ms = 1e-3\n[labels]\ny = "names.txt"\n'
    )
    (repository / "sums" / "1").mkdir(parents=True)
    shutil.move(token_sum(repository), repository / "sums" / "1" / "model.onnx")
    (repository / "sums" / "config.toml").write_text("[sample]\nids = [[5, 6, 7]]\n")
    with Served("--repository", str(repository)) as served:
        assert "up to 3 rows a batch" in served.banner
        assert '{"instances":[[5,6,7]]}' in served.banner
        config = httpx2.get(f"{served.url}/v2/models/named/config").json()
        tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0, 3, 1, 2]}
        asked = {"inputs": [tensor], "outputs": [{"name": "y", "parameters": {"classification": 2}}]}
        late = httpx2.post(f"{served.url}/v2/models/named/infer", json=asked)
        asked["parameters"] = {"timeout": 10_000_000}
        answer = httpx2.post(f"{served.url}/v2/models/named/infer", json=asked)

    assert config["max_batch_size"] == 3
    assert late.status_code == 504
    assert answer.json()["outputs"][0]["data"] == ["7.0:1:one", "5.0:3:three"]


def test_a_server_of_which_a_model_cannot_be_loaded_does_not_start_but_where_that_can_be_put_right(repository):
    put(repository, "adding", 1)
    (repository / "bad.onnx").write_bytes(b"no model")

    refused = run("serve", "--repository", str(repository), "--port", "0")
    assert refused.returncode == 1
    assert "model 'bad' cannot be served" in refused.stderr

    with Served("--repository", str(repository), *POLL) as served:
        assert "model     adding, version 1: CPUExecutionProvider (" in served.banner, "and why not a GPU"
        assert "model     bad, version 1: failed: " in served.banner
        assert httpx2.get(f"{served.url}/readyz").status_code == 503
        assert added(served, "adding") == 1
        adding(repository.parent / "good.onnx", 5).replace(repository / "bad.onnx")
        until(lambda: httpx2.get(f"{served.url}/readyz").status_code == 200)
        assert added(served, "bad") == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.onnx", "--repository", "DIR"], "repository: serve one model or a repository, not both"),
        (["--repository", "DIR", "--name", "cat"], "repository: serve one model or a repository, not both"),
        (["--repository-mode", "poll"], "repository_mode: there is no repository"),
        (["--repository", "DIR", "--load-models", "adding"], "load_models: is for the repository mode explicit"),
        (["--repository", "DIR", *EXPLICIT, "--load-models", "adding,cat"], "there is no model cat to load at start"),
        (["--repository", "DIR/nowhere"], "repository: .*nowhere: No such file or directory"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(repository, arguments, message):
    put(repository, "adding", 1)

    refused = run("serve", *(each.replace("DIR", str(repository)) for each in arguments))

    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert re.search(message, refused.stderr), refused.stderr


def test_check_says_of_each_model_whether_it_can_be_served(repository):
    put(repository, "adding", 1)
    put(repository, "adding", 2)
    (repository / "adding" / "config.toml").write_text("versions = [1, 2]\n")
    row_encoding(repository)

    good = run("check", str(repository))

    assert good.returncode == 0, good.stderr
    assert good.stdout.splitlines() == ["ok     adding  versions: 2, 1", "ok     row_encoding  versions: 1"]


def test_check_names_what_is_wrong_and_where(repository):
    put(repository, "broken", 1)
    (repository / "broken" / "2").mkdir()
    (repository / "broken" / "2" / "model.onnx").write_bytes(b"no model")
    put(repository, "config", 1)
    (repository / "config" / "config.toml").write_text("slo_ms = 0\nmax_batch = 2\n")
    put(repository, "labels", 1)
    (repository / "labels" / "config.toml").write_text('[labels]\nz = ["a"]\n')
    put(repository, "sample", 1)
    (repository / "sample" / "config.toml").write_text("[sample]\nz = [[1]]\n")
    put(repository, "lines", 1)
    (repository / "lines" / "config.toml").write_text('[labels]\ny = "nowhere.txt"\n')
    put(repository, "lengths", 1)
    (repository / "lengths" / "config.toml").write_text("length_buckets = [8, 16]\n")
    put(repository, "fine", 1)
    (repository / "empty").mkdir()

    bad = run("check", str(repository), "--device", "cpu")

    assert bad.returncode == 1
    lines = bad.stdout.splitlines()
    assert [line for line in lines if line.startswith("ok")] == ["ok     fine  versions: 1"]
    told = dict(itertools.pairwise(lines))
    assert told["error  broken  versions: 2"].endswith("model.onnx cannot be loaded: Protobuf parsing failed.")
    assert (
        "config.toml: slo_ms: Input should be greater than 0; max_batch: unknown key; known are batch_buckets, "
        in told["error  config  versions: none"]
    )
    assert "labels: the model has no output 'z'; it has y" in told["error  labels  versions: 1"]
    assert "sample: " in told["error  sample  versions: 1"]
    assert "length_buckets: the model has no input 'attention_mask'" in told["error  lengths  versions: 1"]
    assert "nowhere.txt: No such file or directory" in told["error  lines  versions: none"]
    assert "empty has no <version>/model.onnx" in told["error  empty  versions: none"]


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_check_fails_where_there_is_nothing_to_check(tmp_path, folder):
    refused = run("check", str(tmp_path / folder))

    assert refused.returncode == 1
    assert refused.stderr.startswith("redserve: ")
