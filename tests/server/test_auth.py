import asyncio

import pytest
from fastapi import WebSocket
from in_process import client_of
from starlette.middleware.cors import CORSMiddleware

from drive_asgi import call, reasons, scope_of
from puppet_engine import PuppetEngine
from redserve.server import Settings, create_app
from redserve.server.api_keys import Keyring
from redserve.server.auth import KeyGuard

KEYS = {scope: f"the-key-for-{scope}-0123456789" for scope in ("inference", "metrics", "admin")}
PATHS = {
    "inference": [
        *("/predict", "/predict/puppet", "/predict/", "/predict/nobody", "/predict/a/b"),
        *("/v2", "/v2/", "/v2/models", "/v2/models/puppet", "/v2/models/puppet/infer", "/v2/models/stats"),
        *("/v2/models/puppet/versions/1/infer", "/v2/repository/index", "/v2/health", "/v2/nothing"),
    ],
    "metrics": ["/metrics", "/metrics/"],
    "admin": ["/", "/docs", "/docs/", "/docs/assets/swagger-ui.css", "/docs/oauth2-redirect", "/openapi.json"],
}
OPEN = ["/livez", "/readyz", "/v2/health/live", "/v2/health/ready"]
STRANGE = [
    "/nothing",
    "/Predict",
    "//predict",
    "/predict%2fpuppet",
    "/x/../predict",
    "//metrics",
    "/METRICS",
    "/docs2",
    "/V2",
    "/v2x",
]
ROWS = {"instances": [[1, 2]]}


@pytest.fixture
def app_with(registry):
    """`app_with("inference", ...)`: the server with a key for each of these scopes."""

    def make(*scopes, **settings):
        keys = {f"{scope}_keys": KEYS[scope] for scope in scopes}
        return create_app(Settings.load({**keys, **settings}), engines={"puppet": PuppetEngine}, registry=registry)

    return make


def bearer(scope):
    return {"authorization": f"Bearer {KEYS[scope]}"}


async def statuses_of(client, paths, headers=None):
    return {path: (await client.get(path, headers=headers)).status_code for path in paths}


async def test_without_keys_all_is_open_and_nothing_looks_for_any(app_with):
    app = app_with()
    async with client_of(app) as client:
        everywhere = [*OPEN, *PATHS["inference"], *PATHS["metrics"], *PATHS["admin"], *STRANGE]
        statuses = await statuses_of(client, everywhere)

    assert not {401, 403} & set(statuses.values())
    assert {statuses[path] for path in (*OPEN, *PATHS["metrics"], "/", "/docs", "/openapi.json")} == {200}
    assert KeyGuard not in [middleware.cls for middleware in app.user_middleware]


async def test_each_scope_asks_for_its_own_key(app_with):
    async with client_of(app_with(*KEYS)) as client:
        for scope, paths in PATHS.items():
            assert set((await statuses_of(client, paths)).values()) == {401}
            assert not {401, 403} & set((await statuses_of(client, paths, bearer(scope))).values())
            for other in KEYS.keys() - {scope}:
                assert set((await statuses_of(client, paths, bearer(other))).values()) == {403}


@pytest.mark.parametrize("guarded", KEYS)
async def test_a_scope_without_keys_is_open_beside_one_that_has_some(app_with, guarded):
    async with client_of(app_with(guarded)) as client:
        for scope, paths in PATHS.items():
            refused = {401} & set((await statuses_of(client, paths)).values())
            assert bool(refused) == (scope == guarded)


@pytest.mark.parametrize("sent", ["no key", "a key", "a wrong key", "the wrong scope"])
async def test_probes_never_need_a_key(app_with, sent):
    headers = {
        "no key": {},
        "a key": bearer("admin"),
        "a wrong key": {"x-api-key": "x"},
        "the wrong scope": bearer("metrics"),
    }
    async with client_of(app_with(*KEYS)) as client:
        assert set((await statuses_of(client, OPEN, headers[sent])).values()) == {200}
        assert (await client.head("/livez", headers=headers[sent])).status_code == 200


async def status_of(app, path, *, method="GET", scope="", root_path=""):
    """The status of a request whose path nobody has tidied up on its way."""
    headers = [(b"x-api-key", KEYS[scope].encode())] if scope else []
    start, *_ = await call(app, scope=scope_of(path, method, root_path=root_path, headers=headers))
    return start["status"]


@pytest.mark.parametrize("path", STRANGE)
async def test_any_other_path_needs_an_admin_key_or_else_an_inference_key(app_with, path):
    app = app_with(*KEYS)
    assert [await status_of(app, path, scope=scope) for scope in ("", "inference", "admin")] == [401, 403, 404]
    app = app_with("inference", "metrics")
    assert [await status_of(app, path, scope=scope) for scope in ("", "metrics", "inference")] == [401, 403, 404]
    app = app_with("metrics")
    assert await status_of(app, path) == 404


@pytest.mark.parametrize("change", ["load", "unload"])
async def test_to_change_the_models_needs_an_admin_key_or_else_an_inference_key(app_with, change):
    path = f"/v2/repository/models/puppet/{change}"
    app = app_with(*KEYS)
    assert [await status_of(app, path, method="POST", scope=scope) for scope in ("", "inference", "admin")] == [
        401,
        403,
        400,
    ]
    app = app_with("inference")
    assert [await status_of(app, path, method="POST", scope=scope) for scope in ("", "inference")] == [401, 400]


async def test_below_v2_a_refusal_has_the_form_of_its_protocol(app_with):
    async with client_of(app_with(*KEYS)) as client:
        refused = await client.post("/v2/models/puppet/infer", json=ROWS)
        elsewhere = await client.post("/predict", json=ROWS)

    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.json()["error"].startswith("this needs a key for inference")
    assert elsewhere.json()["error"]["reason"] == "unauthorized"


@pytest.mark.parametrize(
    "path",
    [
        *("/predict", "/predict/puppet", "/PREDICT", "//predict", "///predict/puppet", "/./predict", "/x/../predict"),
        *("/predict/", "/predict//", "/predict;x", "/predict?x", "/predict#x", "/predict%2fpuppet", "/%70redict"),
        *("*predict", "predict", "xpredict", "", "*", "http://host/predict", "/metrics/../predict", "/readyz/predict"),
        *(
            "/livez//",
            "/v2/health",
            "/v2/health/live//",
            "/v2/../livez",
            "/docs/../predict",
            "/ml/predict",
            "/predict\0",
            " /predict",
            "/predict ",
            "/\uff50redict",
        ),
    ],
)
async def test_no_spelling_of_a_path_gets_past(app_with, path):
    app = app_with(*KEYS)
    for root_path in ("", "/ml", "/predict", "/livez", "/"):
        for method in ("POST", "HEAD", "OPTIONS", "GET", "predict"):
            assert await status_of(app, path, method=method, root_path=root_path) == 401


@pytest.mark.parametrize(("path", "root_path"), [("/ml/predict", "/ml"), ("/predict", "/ml"), ("/ml/livez", "/ml")])
async def test_the_root_path_is_no_part_of_the_path(app_with, path, root_path):
    app = app_with("inference")

    assert await status_of(app, path, root_path=root_path) == (200 if path.endswith("livez") else 401)
    assert await status_of(app, path, root_path=root_path, scope="inference") == (200 if "livez" in path else 405)


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", f"Bearer {KEYS['inference']}")],
        [("authorization", f"bearer  {KEYS['inference']} ")],
        [("x-api-key", KEYS["inference"])],
        [("X-API-Key", KEYS["inference"])],
        [("authorization", "Basic dXNlcjpwYXNzd29yZA=="), ("x-api-key", KEYS["inference"])],
    ],
    ids=["bearer", "another spelling", "header", "its case", "beside a proxy's password"],
)
async def test_a_key_may_come_in_either_header(app_with, headers):
    async with client_of(app_with("inference")) as client:
        answer = await client.post("/predict", json=ROWS, headers=headers)

    assert answer.json() == {"predictions": [[2.0, 4.0]]}


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ([], "this needs a key for inference: send it as"),
        ([("authorization", "Basic dXNlcjpwYXNzd29yZA==")], "this needs a key"),
        ([("authorization", KEYS["inference"])], "this needs a key"),
        ([("cookie", f"x-api-key={KEYS['inference']}")], "this needs a key"),
        ([("authorization", "Bearer")], "not known"),
        ([("x-api-key", "")], "not known"),
        ([("x-api-key", KEYS["inference"][:-1])], "not known"),
        ([("x-api-key", KEYS["inference"].upper())], "not known"),
        ([("x-api-key", f"{KEYS['inference']}, {KEYS['inference']}")], "not known"),
        ([("x-api-key", f"Bearer {KEYS['inference']}")], "not known"),
        ([("x-api-key", b"\xff\xfe")], "not known"),
        ([("x-api-key", KEYS["inference"]), ("x-api-key", "another")], "more than one key"),
        ([("x-api-key", KEYS["inference"])] * 2, "more than one key"),
        ([("authorization", f"Bearer {KEYS['inference']}")] * 2, "more than one key"),
        ([("authorization", f"Bearer {KEYS['inference']}"), ("x-api-key", "another")], "more than one key"),
    ],
)
async def test_anything_but_one_known_key_is_a_401(app_with, headers, message):
    async with client_of(app_with("inference")) as client:
        answer = await client.post("/predict", json=ROWS, headers=headers)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["reason"] == "unauthorized"
    assert message in answer.json()["error"]["message"]
    assert KEYS["inference"] not in answer.text


async def test_a_key_for_something_else_is_a_403_that_says_so(app_with):
    async with client_of(app_with(*KEYS)) as client:
        answer = await client.post("/predict", json=ROWS, headers=bearer("metrics"))

    assert answer.status_code == 403
    assert "www-authenticate" not in answer.headers
    assert answer.json()["error"] == {
        "reason": "unauthorized",
        "message": "this needs a key for inference, and yours is for metrics",
    }


async def test_a_refused_request_is_counted_by_its_route(app_with, registry):
    async with client_of(app_with(*KEYS)) as client:
        for path in ("/predict", "/predict/puppet", "/predict/a-name-of-nobody", "/predict/a/b", "/nothing", "/"):
            await client.post(path, json=ROWS)
        await client.post("/predict", json=ROWS, headers=bearer("admin"))
        for path in ("/metrics", "/docs", "/openapi.json"):
            assert (await client.get(path)).status_code == 401

    def counted(route, code="401"):
        labels = {"route": route, "method": "POST", "model": "", "code": code, "outcome": "client_error"}
        return registry.get_sample_value("inference_requests_total", labels)

    assert [counted(route) for route in ("/predict", "/predict/{model}", "_other", "/")] == [1, 2, 2, 1]
    assert counted("/predict", "403") == 1
    assert reasons(registry).keys() == {"unauthorized"}
    assert registry.get_sample_value("inference_requests_received_total", {"method": "POST"}) == 7
    assert registry.get_sample_value("inference_requests_received_total", {"method": "GET"}) is None
    assert registry.get_sample_value("inference_requests_in_flight") == 0


async def test_no_byte_of_the_body_is_read_for_a_401(app_with):
    async def receive():
        raise AssertionError("the body was asked for")

    sent = []

    async def send(message):
        sent.append(message)

    await app_with("inference")(scope_of("/predict", "POST"), receive, send)

    assert sent[0]["status"] == 401


async def test_scrapes_are_answered_as_without_keys(app_with):
    async with client_of(app_with("metrics")) as client:
        for path in PATHS["metrics"]:
            answer = await client.get(path, headers=bearer("metrics"))
            head = await client.head(path, headers=bearer("metrics"))
            post = await client.post(path, headers=bearer("metrics"))

            assert "inference_model_ready" in answer.text
            assert (head.status_code, head.content) == (200, b"")
            assert post.status_code == 405


async def test_a_websocket_of_ones_own_needs_a_key_too(app_with):
    app = app_with("inference")
    heard = []

    @app.websocket("/own")
    async def own(websocket: WebSocket) -> None:
        heard.append(websocket)
        await websocket.accept()

    async def connect(*headers):
        scope = scope_of("/own") | {"type": "websocket", "scheme": "ws", "subprotocols": [], "headers": list(headers)}
        return await call(app, scope=scope, incoming=[{"type": "websocket.connect"}])

    (refusal,) = await connect()
    assert (refusal["type"], refusal["code"]) == ("websocket.close", 1008)
    assert heard == []
    accepted = await connect((b"x-api-key", KEYS["inference"].encode()))
    assert accepted[0]["type"] == "websocket.accept"


async def test_keys_of_a_file_count_from_the_next_look_on(app_with, tmp_path, monkeypatch):
    path = tmp_path / "keys.toml"
    path.write_text(f'inference = ["{KEYS["inference"]}"]\n')
    monkeypatch.setattr("redserve.server.api_keys.LOOK_EVERY_S", 0.001)
    app = app_with(api_keys_file=path)
    keyring = app.state.redserve.keyring
    old, has_new, loop = keyring.keys, asyncio.Event(), asyncio.get_running_loop()

    def look():
        Keyring.look(keyring)
        if keyring.keys is not old:
            loop.call_soon_threadsafe(has_new.set)

    monkeypatch.setattr(keyring, "look", look)
    async with client_of(app) as client:
        before = await client.post("/predict", json=ROWS, headers=bearer("inference"))
        await asyncio.to_thread(path.write_text, f'inference = ["{KEYS["admin"]}"]\n')
        await has_new.wait()
        after = await client.post("/predict", json=ROWS, headers=bearer("inference"))
        new = await client.post("/predict", json=ROWS, headers=bearer("admin"))

    assert [answer.status_code for answer in (before, after, new)] == [200, 401, 200]


async def test_the_documentation_says_what_needs_a_key(app_with):
    async with client_of(app_with("inference", "admin")) as client:
        schema = (await client.get("/openapi.json", headers=bearer("admin"))).json()

    guarded = {path for path, item in schema["paths"].items() for operation in item.values() if "security" in operation}
    below_v2 = {path for path in schema["paths"] if path.startswith("/v2") and not path.startswith("/v2/health/")}
    assert len(below_v2) == 14
    assert guarded == {"/predict", "/predict/{model}", "/", *below_v2}
    assert schema["components"]["securitySchemes"] == {
        "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    predict = schema["paths"]["/predict"]["post"]
    assert predict["security"] == [{"bearer": []}, {"header": []}]
    assert {"200", "400", "401", "403"} <= predict["responses"].keys()
    refusal = schema["paths"]["/v2/models/{model}/infer"]["post"]["responses"]["401"]
    assert refusal["content"]["application/json"]["schema"]["properties"] == {"error": {"type": "string"}}


async def test_the_documentation_speaks_of_no_keys_where_there_are_none(app_with):
    async with client_of(app_with()) as client:
        schema = (await client.get("/openapi.json")).json()

    assert "securitySchemes" not in schema.get("components", {})
    assert not any("security" in operation for item in schema["paths"].values() for operation in item.values())
    assert "401" not in schema["paths"]["/predict"]["post"]["responses"]


@pytest.mark.parametrize("scopes", [(), tuple(KEYS)], ids=["open", "with keys"])
async def test_no_other_origin_is_let_in(app_with, scopes):
    asks = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
    async with client_of(app_with(*scopes)) as client:
        for path in ("/predict", "/predict/puppet", "/metrics", "/", "/livez", "/readyz"):
            for method in ("OPTIONS", "GET", "POST"):
                answer = await client.request(method, path, headers=asks)
                assert not [name for name in answer.headers if name.startswith("access-control-")]
                assert method != "OPTIONS" or answer.status_code in (401, 405)


async def test_cors_can_be_added_around_the_keys(app_with):
    app = app_with("inference")
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["https://app.example"],
        allow_methods=["POST"],
        allow_headers=["Authorization", "Content-Type"],
    )
    origin = {"origin": "https://app.example"}
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    async with client_of(app) as client:
        preflight = await client.options("/predict", headers={**origin, **asks})
        refused = await client.post("/predict", json=ROWS, headers=origin)
        answer = await client.post("/predict", json=ROWS, headers={**origin, **bearer("inference")})

    assert preflight.status_code == 200
    assert (refused.status_code, answer.status_code) == (401, 200)
    for response in (preflight, refused, answer):
        assert response.headers["access-control-allow-origin"] == "https://app.example"
