import asyncio
import logging
import threading

import msgspec
import pytest
from in_process import client_of
from prometheus_client.parser import text_string_to_metric_families

from puppet_engine import PuppetEngine
from redserve.engine.base import Batchability, Engine
from redserve.errors import ModelLoadError
from redserve.protocol import PredictJson
from redserve.server import Settings, create_app

JSON = {"content-type": "application/json"}


@pytest.fixture
def engine():
    return PuppetEngine()


@pytest.fixture
def app(engine, registry):
    return create_app(Settings.load(), engines={"puppet": lambda: engine}, registry=registry)


def value_of(registry, name, **labels):
    return registry.get_sample_value(f"inference_{name}", labels)


async def test_rows_are_answered_with_predictions(app):
    async with client_of(app) as client:
        for path in ("/predict", "/predict/puppet"):
            answer = await client.post(path, json={"instances": [[1, 2], [3, 4]]})

            assert answer.status_code == 200
            assert answer.json() == {"predictions": [[2.0, 4.0], [6.0, 8.0]]}
            assert answer.headers["content-type"] == "application/json"


async def test_columns_are_answered_with_outputs(app):
    async with client_of(app) as client:
        answer = await client.post("/predict", json={"inputs": {"x": [[1, 2]]}})

    assert answer.json() == {"outputs": {"y": [[2.0, 4.0]]}}


async def test_an_answer_says_where_its_time_went(app):
    async with client_of(app) as client:
        answer = await client.post("/predict", json={"instances": [[1, 2]]})

    spans = dict(part.strip().split(";dur=") for part in answer.headers["server-timing"].split(","))
    assert list(spans) == ["queue", "compute", "total"]
    assert float(spans["queue"]) + float(spans["compute"]) <= float(spans["total"])


async def test_a_request_is_counted_by_route_model_and_outcome(app, registry):
    async with client_of(app) as client:
        await client.post("/predict/puppet", json={"instances": [[1, 2]]})
        await client.post("/predict", json={"instances": [[1]]})
        await client.post("/predict/nobody", json={"instances": [[1, 2]]})

    ok = {"route": "/predict/{model}", "method": "POST", "model": "puppet", "outcome": "ok"}
    assert value_of(registry, "requests_total", code="200", **ok) == 1
    assert value_of(registry, "request_latency_seconds_count", **ok) == 1
    assert value_of(registry, "errors_total", route="/predict", model="puppet", reason="bad_request") == 1
    assert value_of(registry, "errors_total", route="/predict/{model}", model="", reason="unknown_model") == 1
    assert value_of(registry, "batch_size_sum", model="puppet", version="1") == 1
    assert value_of(registry, "requests_in_flight") == 0
    assert value_of(registry, "requests_received_total", method="POST") == 3


async def test_metrics_are_served_and_do_not_count_themselves(app):
    async with client_of(app) as client:
        await client.get("/metrics")
        text = (await client.get("/metrics")).text

    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["inference_requests_received"].samples == []
    info = families["inference_model_info"].samples[0].labels
    assert (info["model"], info["provider"], info["batching"]) == ("puppet", "PuppetProvider", "dynamic")


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "reason"),
    [
        ("POST", "/predict", b"{", JSON, 400, "bad_request"),
        ("POST", "/predict", b"", JSON, 400, "bad_request"),
        ("POST", "/predict", b'{"instances": []}', JSON, 400, "bad_request"),
        ("POST", "/predict", b'{"instances": [[1, 2, 3]]}', JSON, 400, "bad_request"),
        ("POST", "/predict", b'{"instances": [[1, 1e300]]}', JSON, 400, "bad_request"),
        ("POST", "/predict", b"x", {"content-type": "text/plain"}, 415, "unsupported_media_type"),
        ("POST", "/predict", b"x", {**JSON, "content-encoding": "br"}, 415, "unsupported_media_type"),
        ("POST", "/predict", b"x", {**JSON, "content-encoding": "gzip"}, 400, "bad_request"),
        ("POST", "/predict/nobody", b"{}", JSON, 404, "unknown_model"),
        ("GET", "/predict", b"", {}, 405, "method_not_allowed"),
        ("DELETE", "/predict/puppet", b"", {}, 405, "method_not_allowed"),
        ("POST", "/predict/a/b", b"", {}, 404, "not_found"),
        ("GET", "/nothing", b"", {}, 404, "not_found"),
        ("POST", "/livez", b"", {}, 405, "method_not_allowed"),
    ],
)
async def test_a_mistake_is_answered_with_its_reason(app, method, path, body, headers, status, reason):
    async with client_of(app) as client:
        answer = await client.request(method, path, content=body, headers=headers)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert error["reason"] == reason
    assert error["message"]
    assert (status == 405) == ("allow" in answer.headers)


async def test_a_mistake_is_told_with_its_place(app):
    async with client_of(app) as client:
        answer = await client.post("/predict", json={"instances": [[1, 2], [3, 1e300]]})

    assert answer.json()["error"] == {
        "reason": "bad_request",
        "message": "1e+300 does not fit float32",
        "model": "puppet",
        "where": "$.instances[1][1]",
    }


async def test_a_model_that_fails_is_a_500_that_says_so(app, registry):
    async with client_of(app) as client:
        answer = await client.post("/predict", json={"instances": [[-1, 2]]})

    assert answer.status_code == 500
    assert answer.json()["error"]["reason"] == "model_error"
    assert value_of(registry, "errors_total", route="/predict", model="puppet", reason="model_error") == 1


async def test_an_answer_that_json_cannot_say_is_a_500_and_never_a_silent_null(registry):
    engine = PuppetEngine(change=lambda rows: rows / 0 * 0 if rows[0, 0] == 13 else rows)
    app = create_app(Settings.load(), engines={"puppet": lambda: engine}, registry=registry)
    async with client_of(app) as client:
        with pytest.warns(RuntimeWarning):
            answer = await client.post("/predict", json={"instances": [[13, 2]]})

    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "output 'y' has a value that is not finite"


async def test_a_body_over_the_limit_is_refused_before_it_is_stored(engine, registry):
    app = create_app(Settings.load({"max_body_mib": 1}), engines={"puppet": lambda: engine}, registry=registry)
    read = 0

    async def endless():
        nonlocal read
        while True:
            read += 1
            yield b" " * 2**18

    async with client_of(app) as client:
        declared = await client.post("/predict", content=b" " * (2**20 + 1), headers=JSON)
        streamed = await client.post("/predict", content=endless(), headers=JSON)

    assert declared.status_code == streamed.status_code == 413
    assert read <= 6


async def test_a_large_body_is_decoded_beside_the_loop(engine, registry, monkeypatch):
    app = create_app(Settings.load({"max_queue_rows": 20_000}), engines={"puppet": lambda: engine}, registry=registry)
    threads = set()
    original = PredictJson.decode

    def watched(self, body, *, json_length=b""):
        threads.add((len(body) > 65_536, threading.current_thread() is threading.main_thread()))
        return original(self, body, json_length=json_length)

    monkeypatch.setattr(PredictJson, "decode", watched)
    async with client_of(app) as client:
        small = await client.post("/predict", json={"instances": [[1, 2]]})
        large = await client.post("/predict", json={"instances": [[1, 2]] * 20_000})
        wrong = await client.post("/predict", json={"instances": [[1, 2]] * 20_000 + [[1]]})

    assert len(small.json()["predictions"]) == 1
    assert len(large.json()["predictions"]) == 20_000
    assert wrong.status_code == 400
    assert wrong.json()["error"]["where"] == "$.instances[20000]"
    assert threads == {(False, True), (True, False)}


async def test_more_rows_than_may_wait_are_refused_at_once(engine, registry):
    app = create_app(Settings.load({"max_queue_rows": 5}), engines={"puppet": lambda: engine}, registry=registry)
    async with client_of(app) as client:
        fitting = await client.post("/predict", json={"instances": [[1, 2]] * 5})
        too_many = await client.post("/predict", json={"instances": [[1, 2]] * 6})

    assert fitting.status_code == 200
    assert too_many.status_code == 413
    assert "6 rows, and only 5 may wait" in too_many.json()["error"]["message"]


async def test_a_long_name_in_a_mistake_is_not_echoed_whole(app):
    async with client_of(app) as client:
        answer = await client.post("/predict", json={"x" * 100_000: 1})

    assert answer.status_code == 400
    assert len(answer.content) < 3_000


async def test_probes_may_ask_with_head(app):
    async with client_of(app) as client:
        for path in ("/", "/livez", "/readyz"):
            answer = await client.head(path)
            assert (answer.status_code, answer.content) == (200, b"")


async def test_ready_only_once_the_model_is_warm(engine, registry):
    may_load = threading.Event()

    def load() -> Engine:
        may_load.wait(20)
        return engine

    app = create_app(Settings.load(), engines={"puppet": load}, registry=registry)
    async with client_of(app, loaded=False) as client:
        early = await client.get("/readyz")
        refused = await client.post("/predict", json={"instances": [[1, 2]]})
        assert value_of(registry, "model_ready", model="puppet", version="1") == 0
        may_load.set()
        await app.state.redserve.loaded.wait()
        ready = await client.get("/readyz")

        assert early.status_code == 503
        assert early.json()["reasons"] == {"puppet": "loading and warming up"}
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["reason"] == "model_not_ready"
        assert ready.status_code == 200
        assert ready.json() == {"status": "ready", "providers": {"puppet": "PuppetProvider"}}
        assert value_of(registry, "model_ready", model="puppet", version="1") == 1
        assert (await client.get("/livez")).status_code == 200


async def test_a_model_that_cannot_be_loaded_is_told_at_readyz(registry):
    def load() -> Engine:
        raise ModelLoadError("the file is empty")

    app = create_app(Settings.load(), engines={"puppet": load}, registry=registry)
    async with client_of(app) as client:
        answer = await client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["reasons"] == {"puppet": "the file is empty"}


async def test_a_drain_is_told_at_readyz_while_requests_are_still_answered(app):
    async with client_of(app) as client:
        app.state.redserve.draining = True

        assert (await client.get("/readyz")).json()["reasons"] == {"server": "shutting down"}
        assert (await client.post("/predict", json={"instances": [[1, 2]]})).status_code == 200


async def test_the_index_links_to_what_is_there(app):
    async with client_of(app) as client:
        index = (await client.get("/")).json()
        statuses = {name: (await client.get(link)).status_code for name, link in index["links"].items()}

    assert index["models"] == [{"name": "puppet", "version": "1", "state": "ready", "predict": "/predict/puppet"}]
    assert statuses == {"predict": 405, "docs": 200, "openapi": 200, "metrics": 200, "live": 200, "ready": 200}


async def test_the_examples_of_the_documentation_work_as_they_stand(app):
    async with client_of(app) as client:
        schema = (await client.get("/openapi.json")).json()
        checked = 0
        for path in ("/predict", "/predict/{model}"):
            operation = schema["paths"][path]["post"]
            requests = operation["requestBody"]["content"]["application/json"]["examples"]
            answers = operation["responses"]["200"]["content"]["application/json"]["examples"]
            for name, request in requests.items():
                answer = await client.post(path.format(model="puppet"), json=request["value"])
                assert answer.json() == answers[name]["value"]
                checked += 1

    assert checked == 4


async def test_the_documentation_needs_no_internet(app):
    async with client_of(app) as client:
        page = (await client.get("/docs")).text
        assets = [part.split('"')[0] for part in page.split('="')[1:] if part.startswith("/docs/assets/")]
        sizes = [len((await client.get(asset)).content) for asset in assets if not asset.endswith(".png")]

    assert "https://" not in page
    assert len(sizes) == 2
    assert min(sizes) > 100_000


async def test_a_model_that_is_not_row_wise_is_served_by_columns(registry):
    engine = PuppetEngine(Batchability(mode="whole", reason="input 'sr' has no rows"))
    app = create_app(Settings.load(), engines={"puppet": lambda: engine}, registry=registry)
    async with client_of(app) as client:
        rows = await client.post("/predict", json={"instances": [[1, 2]]})
        columns = await client.post("/predict", json={"inputs": {"x": [[1, 2]]}})

    assert rows.status_code == 400
    assert "input 'sr' has no rows" in rows.json()["error"]["message"]
    assert columns.json() == {"outputs": {"y": [[2.0, 4.0]]}}


async def test_two_models_are_served_side_by_side(registry):
    other = PuppetEngine(change=lambda rows: 3 * rows)
    app = create_app(Settings.load(), engines={"two": PuppetEngine, "three": lambda: other}, registry=registry)
    async with client_of(app) as client:
        two, three = await asyncio.gather(
            *(client.post(f"/predict/{name}", json={"instances": [[1, 2]]}) for name in ("two", "three"))
        )
        unnamed = await client.post("/predict", json={"instances": [[1, 2]]})

    assert two.json() == {"predictions": [[2.0, 4.0]]}
    assert three.json() == {"predictions": [[3.0, 6.0]]}
    assert unnamed.status_code == 404
    assert "name one: three, two" in unnamed.json()["error"]["message"]


async def test_an_error_of_the_server_itself_is_json_too(app, registry):
    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("a secret")

    @app.get("/typed")
    async def typed(number: int) -> int:
        return number

    async with client_of(app) as client:
        answer = await client.get("/broken")
        invalid = await client.get("/typed?number=x")

    assert answer.status_code == 500
    assert answer.json()["error"]["reason"] == "unhandled_exception"
    assert "secret" not in answer.text
    assert value_of(registry, "errors_total", route="/broken", model="", reason="unhandled_exception") == 1
    assert invalid.status_code == 422
    assert invalid.json()["error"]["reason"] == "bad_request"
    assert "number" in invalid.json()["error"]["where"]


async def test_the_access_log_is_off_unless_asked_for(engine, registry, caplog):
    caplog.set_level(logging.INFO, "redserve.access")
    logging.getLogger("redserve.access").propagate = True
    for access_log in (False, True):
        app = create_app(
            Settings.load({"access_log": access_log}), engines={"puppet": lambda: engine}, registry=registry
        )
        async with client_of(app) as client:
            await client.post("/predict", json={"instances": [[1, 2]]})

    (record,) = [record for record in caplog.records if record.name == "redserve.access"]
    assert (record.method, record.path, record.status) == ("POST", "/predict", 200)
    assert record.duration_ms > 0


async def test_no_request_waits_for_the_codecs_of_its_model(app, monkeypatch):
    made = []

    def counted(of):
        made.append(of)
        return decoder(of)

    decoder = msgspec.json.Decoder
    monkeypatch.setattr("msgspec.json.Decoder", counted)
    async with client_of(app) as client:
        assert made
        made.clear()

        assert (await client.post("/predict", json={"instances": [[1, 2]]})).status_code == 200

        assert not made
