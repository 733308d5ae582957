"""Models in several versions, loaded and unloaded, as the Open Inference Protocol shows them."""

import pytest
from in_process import client_of

from drive_asgi import reasons
from engine.onnx_models import identity, row_encoding
from redserve.server import Settings, create_app

REQUEST = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}


@pytest.fixture
def app(tmp_path, registry):
    """Version 1 of `rows` gives its input, version 2 the double of it and one."""
    for version, make in (("1", identity), ("2", row_encoding)):
        folder = tmp_path / "rows" / version
        folder.mkdir(parents=True)
        make(folder).rename(folder / "model.onnx")
    (tmp_path / "rows" / "config.toml").write_text('versions = "all"\ninstances = 2\n')
    settings = {"repository": tmp_path, "repository_mode": "explicit", "load_models": "rows", "max_batch_size": 4}
    return create_app(Settings.load(settings), registry=registry)


async def test_each_version_answers_for_itself_and_the_newest_for_whoever_names_none(app):
    async with client_of(app) as client:
        answers = {
            path: (await client.post(f"/v2/models/rows{path}/infer", json=REQUEST)).json()
            for path in ("/versions/1", "/versions/2", "")
        }
        metadata = [(await client.get(f"/v2/models/rows{path}")).json() for path in ("", "/versions/1")]
        config = (await client.get("/v2/models/rows/config")).json()
        stats = (await client.get("/v2/models/rows/stats")).json()["model_stats"]
        stats_of_1 = (await client.get("/v2/models/rows/versions/1/stats")).json()["model_stats"]

    assert {path: answer["model_version"] for path, answer in answers.items()} == {
        "/versions/1": "1",
        "/versions/2": "2",
        "": "2",
    }
    assert answers["/versions/1"]["outputs"][0]["data"] == [1.0, 2.0, 3.0, 4.0]
    assert answers[""]["outputs"][0]["data"] == [3.0, 5.0, 7.0, 9.0]
    assert [model["versions"] for model in metadata] == [["1", "2"], ["1"]]
    assert config["instance_group"][0]["count"] == 2
    assert [(each["version"], each["inference_stats"]["success"]["count"]) for each in stats] == [("1", 1), ("2", 2)]
    assert stats_of_1 == stats[:1]


async def test_a_model_is_unloaded_and_loaded_by_request(app, registry):
    async with client_of(app) as client:
        listed = (await client.post("/v2/repository/index")).json()
        unloaded = await client.post("/v2/repository/models/rows/unload", json={})
        gone = await client.post("/v2/models/rows/infer", json=REQUEST)
        loaded = await client.post("/v2/repository/models/rows/load")
        back = await client.post("/v2/models/rows/infer", json=REQUEST)
        unknown = await client.post("/v2/repository/models/nobody/load")

    assert listed == [{"name": "rows", "version": version, "state": "READY", "reason": ""} for version in ("1", "2")]
    assert [unloaded.status_code, gone.status_code, loaded.status_code, back.status_code] == [200, 404, 200, 200]
    assert unloaded.content == loaded.content == b""
    assert unknown.status_code == 404
    assert isinstance(unknown.json()["error"], str)
    assert reasons(registry)["unknown_model"] >= 1


async def test_loading_and_unloading_are_documented_where_they_are_allowed(app):
    async with client_of(app) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]

    for change in ("load", "unload"):
        assert "post" in paths[f"/v2/repository/models/{{model}}/{change}"]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("rows", b'{"parameters": {"config": "{}"}}'),
        ("rows", b"[]"),
        ("rows", b"{"),
        ("..", b""),
        ("%20rows", b""),
        ("r" * 300, b""),
        (".hidden", b""),
    ],
)
async def test_what_is_loaded_is_never_the_choice_of_a_request(app, name, body):
    async with client_of(app) as client:
        answer = await client.post(f"/v2/repository/models/{name}/load", content=body)
        fine = await client.post("/v2/models/rows/infer", json=REQUEST)

    assert answer.status_code in (400, 404)
    assert isinstance(answer.json()["error"], str)
    assert fine.status_code == 200
