"""The contracts of managed platforms, as settings and in process; over HTTP: `end_to_end/test_platforms_served.py`."""

import pytest
from in_process import client_of

from drive_asgi import call, scope_of
from puppet_engine import PuppetEngine
from redserve.server import Settings, create_app
from redserve.server.platforms import defaults_of, find_model

VERTEX = {"AIP_HTTP_PORT": "8081", "AIP_PREDICT_ROUTE": "/run", "AIP_HEALTH_ROUTE": "/well"}
VERTEX_OWN = "/v1/endpoints/12/deployedModels/34:predict"
KEYS = {scope: f"the-key-for-{scope}-0123456789" for scope in ("inference", "metrics", "admin")}
ROWS = {"instances": [[1, 2]]}


@pytest.fixture
def environment(monkeypatch):
    """`environment(NAME=value)`: these variables, and none of a platform otherwise."""
    names = ("SAGEMAKER_BIND_TO_PORT", "SAGEMAKER_BASE_DIR", "AZUREML_MODEL_DIR", "AIP_STORAGE_URI", *VERTEX)
    for name in names:
        monkeypatch.delenv(name, raising=False)

    def set_all(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.fixture
def app_on(registry, environment):
    """`app_on("vertex", ...)`: the server with an engine of the tests' own, as that platform asks for it."""

    def make(platform, *, models=("puppet",), **settings):
        environment(**VERTEX)
        return create_app(
            Settings.load({"platform": platform, **settings}),
            engines=dict.fromkeys(models, PuppetEngine),
            registry=registry,
        )

    return make


def test_sagemaker_asks_for_invocations_and_ping_on_port_8080_of_all_addresses():
    """Amazon SageMaker AI Developer Guide, "Custom Inference Code with Hosting Services": "Containers need to implement
    a web server that responds to /invocations and /ping on port 8080"; SIGKILL comes 30 s after SIGTERM.
    """
    settings = Settings.load({"platform": "sagemaker"})

    assert (settings.host, settings.port) == ("0.0.0.0", 8080)
    assert (settings.predict_route, settings.ready_route, settings.live_route) == ("/invocations", "/ping", None)
    assert settings.grace_s < 30
    assert settings.max_request_timeout_ms <= 60_000


def test_sagemaker_may_name_another_port(environment):
    """The same, "Run Real-time Predictions with an Inference Pipeline": "The containers in a pipeline listen on the
    port specified in the SAGEMAKER_BIND_TO_PORT environment variable (instead of 8080)".
    """
    environment(SAGEMAKER_BIND_TO_PORT="9001")

    assert Settings.load({"platform": "sagemaker"}).port == 9001


def test_vertex_names_port_and_paths(environment):
    """Google Cloud, "Custom container requirements": the server listens on 0.0.0.0 at AIP_HTTP_PORT."""
    environment(**VERTEX)
    settings = Settings.load({"platform": "vertex"})

    assert (settings.host, settings.port) == ("0.0.0.0", 8081)
    assert (settings.predict_route, settings.ready_route) == ("/run", "/well")


def test_azureml_has_the_port_and_the_paths_of_its_own_server():
    """azureml-inference-server-http, "Server Routes": liveness at :5001/, score at :5001/score."""
    settings = Settings.load({"platform": "azureml"})

    assert (settings.host, settings.port) == ("0.0.0.0", 5001)
    assert (settings.predict_route, settings.live_route) == ("/score", "/")


def test_what_a_user_says_holds_wherever_it_is_said(environment, monkeypatch, tmp_path):
    file = tmp_path / "redserve.toml"
    file.write_text('host = "127.0.0.1"\nplatform = "sagemaker"\n')
    monkeypatch.setenv("REDSERVE_PREDICT_ROUTE", "/run")
    environment(SAGEMAKER_BIND_TO_PORT="none")

    settings = Settings.load({"port": "7", "config": file})

    assert (settings.host, settings.port, settings.predict_route) == ("127.0.0.1", 7, "/run")
    assert settings.ready_route == "/ping"


def test_without_a_platform_its_variables_mean_nothing(environment):
    environment(SAGEMAKER_BIND_TO_PORT="9001", **VERTEX)

    assert Settings.load().port == 8000
    assert Settings.load().predict_route is None


@pytest.mark.parametrize("name", VERTEX)
@pytest.mark.parametrize("value", ["", "x", "0", "65536", "-1", "²", "1e3", "/{model}", "/a b", "/%41", "/a?b", "/é"])
def test_a_variable_that_is_missing_or_wrong_is_named(name, value):
    with pytest.raises(ValueError, match=f"^platform vertex: {name}.* is (no|not) "):
        defaults_of("vertex", VERTEX | {name: value}, given=())


def test_a_variable_whose_setting_is_given_is_not_looked_at():
    assert defaults_of("vertex", {}, given={"port", "predict_route", "ready_route"}) == {"host": "0.0.0.0"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"platform": "aws"}, r"^platform: .*'sagemaker', 'vertex' or 'azureml'$"),
        ({"platform": "sagemaker", "repository": "models"}, "^platform: sagemaker asks for one model"),
        ({"predict_route": "/metrics"}, "^predict_route: /metrics is a page of the server's own"),
        ({"predict_route": "/"}, "^predict_route: / is a page"),
        ({"predict_route": "/readyz"}, "^predict_route: /readyz is a page"),
        ({"ready_route": "/docs"}, "^ready_route: /docs is a page"),
        ({"live_route": "/{path}"}, "^live_route: .*pattern"),
        ({"live_route": "live"}, "^live_route: .*pattern"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(flags, message):
    with pytest.raises(ValueError, match=message):
        Settings.load(flags)


@pytest.mark.parametrize(
    ("platform", "variable", "below"),
    [("sagemaker", "SAGEMAKER_BASE_DIR", "model"), ("azureml", "AZUREML_MODEL_DIR", "")],
)
def test_the_one_onnx_file_in_the_platforms_folder_is_the_model(tmp_path, platform, variable, below):
    folder = tmp_path / below / "digits" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").touch()
    (folder / "._model.onnx").touch()
    (folder / "labels.txt").touch()

    assert find_model(platform, {variable: str(tmp_path)}) == folder / "model.onnx"


def test_several_models_in_the_platforms_folder_are_refused_by_their_names(tmp_path):
    for name in ("b.onnx", "a.onnx"):
        (tmp_path / name).touch()

    with pytest.raises(ValueError, match=r"^platform azureml: it asks for one model.* has 2: a\.onnx, b\.onnx; name"):
        find_model("azureml", {"AZUREML_MODEL_DIR": str(tmp_path)})


@pytest.mark.parametrize(
    ("platform", "environment", "message"),
    [
        ("sagemaker", {"SAGEMAKER_BASE_DIR": "/nowhere"}, "there is no .onnx file in /nowhere/model"),
        ("azureml", {}, "AZUREML_MODEL_DIR is not set"),
        ("azureml", {"AZUREML_MODEL_DIR": "/nowhere"}, "there is no .onnx file in /nowhere"),
        ("vertex", {}, "it says of no model where it lies"),
        (
            "vertex",
            {"AIP_STORAGE_URI": "gs://bucket/digits"},
            "AIP_STORAGE_URI names, gs://bucket/digits, is not downl",
        ),
    ],
)
def test_where_there_is_no_model_it_is_said_and_what_to_do(platform, environment, message):
    with pytest.raises(
        ValueError, match=f"^platform {platform}: .*{message}.*; name the model's file by REDSERVE_MODEL$"
    ):
        find_model(platform, environment)


def test_a_model_that_is_named_is_not_looked_for(tmp_path, environment):
    environment(**VERTEX, AIP_STORAGE_URI="gs://bucket/digits")

    assert Settings.load({"platform": "vertex", "model": tmp_path}).model_file() == tmp_path
    assert Settings.load().model_file() is None


def test_several_engines_are_refused(app_on):
    with pytest.raises(ValueError, match=r"^platform: vertex asks for one model, and there are 2$"):
        app_on("vertex", models=("a", "b"))


@pytest.mark.parametrize(
    ("platform", "predict", "ready"),
    [("sagemaker", "/invocations", "/ping"), ("vertex", "/run", "/well"), ("azureml", "/score", "/readyz")],
)
async def test_the_platforms_paths_answer_beside_the_servers_own(app_on, registry, platform, predict, ready):
    async with client_of(app_on(platform)) as client:
        answers = [await client.post(path, json=ROWS) for path in (predict, "/predict")]
        health = await client.get(ready)
        head = await client.head(ready)
        own = await client.get("/readyz")

    assert [answer.json() for answer in answers] == 2 * [{"predictions": [[2, 4]]}]
    assert (health.status_code, head.status_code) == (200, 200)
    assert ready == "/readyz" or health.content == b""
    assert own.json()["status"] == "ready"
    for route in (predict, "/predict"):
        labels = {"route": route, "method": "POST", "model": "puppet", "code": "200", "outcome": "ok"}
        assert registry.get_sample_value("inference_requests_total", labels) == 1
    assert registry.get_sample_value("inference_requests_received_total", {"method": "GET"}) is None


async def test_one_path_may_be_for_health_and_for_predictions(app_on, registry):
    """`ModelContainerSpec`: predict_route and health_route default to the same path."""
    app = app_on("vertex", predict_route=VERTEX_OWN, ready_route=VERTEX_OWN)
    async with client_of(app) as client:
        health = await client.get(VERTEX_OWN)
        answer = await client.post(VERTEX_OWN, json={**ROWS, "parameters": {"top": 3}})
        app.state.redserve.draining = True
        farewell = await client.get(VERTEX_OWN)

    assert (health.status_code, health.content) == (200, b"")
    assert answer.json() == {"predictions": [[2, 4]]}
    assert (farewell.status_code, farewell.json()["reasons"]) == (503, {"server": "shutting down"})
    counts = {
        (sample.labels["method"], sample.labels["route"], sample.labels["code"]): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "inference_requests_total"
    }
    assert counts == {("GET", VERTEX_OWN, "200"): 1, ("POST", VERTEX_OWN, "200"): 1, ("GET", VERTEX_OWN, "503"): 1}


async def test_ready_ends_with_the_drain_and_live_does_not(app_on):
    app = app_on("azureml", ready_route="/well")
    app.state.redserve.draining = True
    async with client_of(app) as client:
        ready, live = await client.get("/well"), await client.get("/")

    assert (ready.status_code, live.status_code) == (503, 200)
    assert live.content == b""


async def test_another_method_is_refused(app_on):
    async with client_of(app_on("sagemaker")) as client:
        invocations, ping = await client.get("/invocations"), await client.post("/ping")

    assert (invocations.status_code, invocations.headers["allow"]) == (405, "POST")
    assert ping.status_code == 405


async def status_of(app, path, method, scope=""):
    headers = [(b"x-api-key", KEYS[scope].encode())] if scope else []
    body = {"type": "http.request", "body": b'{"instances":[[1,2]]}', "more_body": False}
    start, *_ = await call(app, scope=scope_of(path, method, headers=headers), incoming=[body])
    return start["status"]


@pytest.mark.parametrize(
    ("platform", "predict", "health"),
    [("sagemaker", "/invocations", "/ping"), ("vertex", VERTEX_OWN, VERTEX_OWN), ("azureml", "/score", "/")],
)
async def test_inference_needs_its_key_there_too_and_health_none(app_on, platform, predict, health):
    routes = {"predict_route": predict, "ready_route": health} if platform == "vertex" else {}
    app = app_on(platform, **routes, **{f"{scope}_keys": key for scope, key in KEYS.items()})
    async with client_of(app):
        asked = [await status_of(app, predict, "POST", scope) for scope in ("", "metrics", "admin", "inference")]
        probed = [await status_of(app, health, method) for method in ("GET", "HEAD")]
        posted = await status_of(app, health, "POST")
        near = [await status_of(app, path, "GET") for path in (f"/{predict}", f"{predict}/x", "/docs")]

    assert asked == [401, 403, 403, 200]
    assert probed == [200, 200]
    assert posted == 401
    assert near == [401, 401, 401]


async def test_the_documentation_shows_the_platforms_path(app_on):
    async with client_of(app_on("azureml", inference_keys=KEYS["inference"])) as client:
        paths = (await client.get("/openapi.json", headers={"x-api-key": KEYS["inference"]})).json()["paths"]

    assert paths["/score"]["post"] == paths["/predict"]["post"] | {"operationId": "predict_alias"}
    assert "security" in paths["/score"]["post"]
    assert "/" not in paths
