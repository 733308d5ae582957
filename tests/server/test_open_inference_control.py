"""The paths of the Open Inference Protocol beside inference, in process; real clients are in `tests/clients`."""

import threading

import pytest
from in_process import client_of
from requests_of import request_of

from drive_asgi import counted, reasons
from puppet_engine import PuppetEngine
from redserve.engine.base import Batchability, Engine
from redserve.server import Settings, create_app

INFER = "/v2/models/puppet/infer"


@pytest.fixture
def engine():
    return PuppetEngine()


@pytest.fixture
def app(engine, registry):
    return create_app(Settings.load(), engines={"puppet": lambda: engine}, registry=registry)


async def test_metadata_tells_of_server_and_models(app):
    async with client_of(app) as client:
        server, models, model, version, config = [
            (await client.get(f"/v2{path}")).json()
            for path in ("", "/models", "/models/puppet", "/models/puppet/versions/1", "/models/puppet/config")
        ]

    assert server["name"] == "redserve"
    assert "binary_tensor_data" in server["extensions"]
    assert models == {"models": ["puppet"]}
    assert model == version
    assert model["versions"] == ["1"]
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    assert model["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}]
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [2]}]
    assert config["max_batch_size"] >= 1
    assert "dynamic_batching" in config


async def test_a_model_that_is_not_row_wise_has_no_batches_in_its_configuration(registry):
    engine = PuppetEngine(Batchability(mode="whole", reason="input 'sr' has no rows"))
    app = create_app(Settings.load(), engines={"puppet": lambda: engine}, registry=registry)
    async with client_of(app) as client:
        config = (await client.get("/v2/models/puppet/config")).json()
        answer = await client.post(INFER, json=request_of([[1, 2]]))

    assert config["max_batch_size"] == 0
    assert "dynamic_batching" not in config
    assert answer.json()["outputs"][0]["data"] == [2.0, 4.0]


async def test_health_is_told_with_status_and_word_and_is_in_no_number(app, registry):
    async with client_of(app) as client:
        live, ready, model = [
            await client.get(f"/v2/{path}") for path in ("health/live", "health/ready", "models/puppet/ready")
        ]
        by_head = await client.head("/v2/health/ready")
        app.state.redserve.draining = True
        draining = await client.get("/v2/health/ready")

    assert (live.status_code, live.json()) == (200, {"live": True})
    assert (ready.status_code, ready.json()) == (200, {"ready": True})
    assert (model.status_code, model.json()) == (200, {"name": "puppet", "ready": True})
    assert by_head.status_code == 200
    assert (draining.status_code, draining.json()) == (503, {"error": "shutting down"})
    assert {route for route, *_ in counted(registry)} == {"/v2/models/{model}/ready"}


async def test_a_model_that_loads_is_503_everywhere_but_alive(engine, registry):
    may_load = threading.Event()

    def load() -> Engine:
        may_load.wait(20)
        return engine

    app = create_app(Settings.load(), engines={"puppet": load}, registry=registry)
    async with client_of(app, loaded=False) as client:
        paths = ["health/ready", *(f"models/puppet{end}" for end in ("", "/ready", "/config", "/stats"))]
        answers = [await client.get(f"/v2/{path}") for path in paths]
        answers.append(await client.post(INFER, json=request_of([[1, 2]])))
        unknown_version = await client.get("/v2/models/puppet/versions/2/ready")
        live = await client.get("/v2/health/live")
        index = (await client.post("/v2/repository/index")).json()
        ready_index = (await client.post("/v2/repository/index", json={"ready": True})).json()
        stats = (await client.get("/v2/models/stats")).json()
        may_load.set()
        await app.state.redserve.loaded.wait()

    assert [answer.status_code for answer in answers] == [503] * 6
    assert all("loading and warming up" in answer.json()["error"] for answer in answers)
    assert unknown_version.status_code == 404
    assert live.status_code == 200
    assert index == [{"name": "puppet", "version": "1", "state": "LOADING", "reason": "loading and warming up"}]
    assert ready_index == []
    assert stats == {"model_stats": []}


async def test_statistics_say_what_was_done(app):
    async with client_of(app) as client:
        before = (await client.get("/v2/models/puppet/stats")).json()["model_stats"][0]
        await client.post(INFER, json=request_of([[1, 2], [3, 4]]))
        await client.post("/predict", json={"instances": [[1, 2]]})
        await client.post(INFER, json=request_of([[-1, 2]]))
        await client.post(INFER, json={})
        after, again, everything = [
            (await client.get(f"/v2/models/{path}")).json()["model_stats"]
            for path in ("puppet/stats", "puppet/versions/1/stats", "stats")
        ]

    assert after == again == everything
    (after,) = after
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["execution_count"] - before["execution_count"] == 2
    counts = {name: duration["count"] for name, duration in after["inference_stats"].items()}
    assert counts == {
        **dict.fromkeys(("success", "queue", "compute_input", "compute_infer", "compute_output"), 2),
        "fail": 2,
        "cache_hit": 0,
        "cache_miss": 0,
    }
    assert after["inference_stats"]["success"]["ns"] > after["inference_stats"]["compute_infer"]["ns"] > 0
    assert [entry["batch_size"] for entry in after["batch_stats"]] == [1, 2]


async def test_the_index_lists_what_is_served(app):
    listed = [{"name": "puppet", "version": "1", "state": "READY", "reason": ""}]
    async with client_of(app) as client:
        for body in (b"", b"{}", b'{"ready": true}', b'{"ready": false}'):
            answer = await client.post("/v2/repository/index", content=body)

            assert (answer.status_code, answer.json()) == (200, listed)


@pytest.mark.parametrize("body", [b"[]", b'{"ready": 1}', b'{"ready": "true"}', b"{", b"[" * 250_000, b'{"a":' * 2_000])
async def test_an_index_that_is_asked_for_wrongly_is_refused(app, body):
    async with client_of(app) as client:
        answer = await client.post("/v2/repository/index", content=body)
        fine = await client.post("/v2/repository/index")

    assert answer.status_code in (400, 413)
    assert isinstance(answer.json()["error"], str)
    assert fine.status_code == 200


@pytest.mark.parametrize("change", ["load", "unload"])
async def test_models_cannot_be_loaded_or_unloaded_by_a_request(app, registry, change):
    async with client_of(app) as client:
        answer = await client.post(f"/v2/repository/models/puppet/{change}", json={})

    assert answer.status_code == 400
    assert "cannot be loaded or unloaded by a request" in answer.json()["error"]
    assert reasons(registry) == {"client_error": 1}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", INFER, 405),
        ("PUT", "/v2/models/puppet/versions/1/infer", 405),
        ("POST", "/v2", 405),
        ("POST", "/v2/health/live", 405),
        ("DELETE", "/v2/models/puppet", 405),
        ("POST", "/v2/models/stats", 405),
        ("GET", "/v2/repository/index", 405),
        ("GET", "/v2/repository/models/puppet/load", 405),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/", 404),
        ("GET", "/v2/models/puppet/", 404),
        ("POST", "/v2/models/puppet/infer/", 404),
        ("POST", "/v2/models//infer", 404),
        ("POST", "/v2/models/puppet/infer/now", 404),
        ("GET", "/v2/models/nobody", 404),
        ("GET", "/v2/models/nobody/ready", 404),
        ("GET", "/v2/models/puppet/versions/2", 404),
        ("GET", "/v2/models/puppet/versions/one/config", 404),
        ("GET", "/v2/models/nobody/stats", 404),
        ("POST", "/v2/models/nobody/infer", 404),
        ("GET", "/v2/trace/setting", 404),
        ("GET", "/v2/systemsharedmemory/status", 404),
    ],
)
async def test_below_v2_every_mistake_is_an_error_in_words(app, method, path, status):
    async with client_of(app) as client:
        answer = await client.request(method, path)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert isinstance(answer.json()["error"], str)
    assert answer.json()["error"]
    assert ("allow" in answer.headers) == (status == 405)


async def test_the_server_is_described_under_both_spellings_of_its_path(app):
    async with client_of(app) as client:
        answers = [await client.get(path) for path in ("/v2", "/v2/")]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()


async def test_below_v2_a_failure_of_the_server_itself_is_an_error_in_words_too(app, monkeypatch):
    monkeypatch.setattr("redserve.server.open_inference.model_config", lambda *given, **more: 1 / 0)
    async with client_of(app) as client:
        answer = await client.get("/v2/models/puppet/config")

    assert (answer.status_code, answer.json()) == (500, {"error": "the server failed on this request"})


async def test_a_model_named_stats_has_all_but_its_metadata_without_a_version(registry):
    app = create_app(Settings.load(), engines={"stats": PuppetEngine}, registry=registry)
    async with client_of(app) as client:
        everything = (await client.get("/v2/models/stats")).json()
        named = (await client.get("/v2/models/stats/versions/1")).json()
        answer = await client.post("/v2/models/stats/infer", json=request_of([[1, 2]]))

    assert everything["model_stats"][0]["name"] == "stats"
    assert named["name"] == "stats"
    assert answer.status_code == 200


async def test_the_examples_of_the_documentation_work_as_they_stand(app):
    async with client_of(app) as client:
        schema = (await client.get("/openapi.json")).json()
        for template in ("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"):
            operation = schema["paths"][template]["post"]
            request = operation["requestBody"]["content"]["application/json"]["examples"]["puppet"]["value"]
            wanted = operation["responses"]["200"]["content"]["application/json"]["examples"]["puppet"]["value"]

            answer = await client.post(template.format(model="puppet", version="1"), json=request)

            assert answer.json() == wanted


async def test_every_path_that_is_documented_is_served(app):
    async with client_of(app) as client:
        schema = (await client.get("/openapi.json")).json()
        statuses = {
            template: (await client.request(method, template.format(model="puppet", version="1"))).status_code
            for template, item in schema["paths"].items()
            for method in item
            if template.startswith("/v2")
        }

    assert len(statuses) == 16
    assert set(statuses.values()) == {200, 400}
    assert {template for template, status in statuses.items() if status == 400} == {
        "/v2/models/{model}/infer",
        "/v2/models/{model}/versions/{version}/infer",
    }
