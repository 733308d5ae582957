import pytest
from in_process import client_of

from engine.lost_device import WHAT_IT_SAYS, lose_device, make_losable
from engine.onnx_models import row_encoding
from redserve.engine import OnnxRuntimeEngine
from redserve.server import Settings, create_app

ROW = {"instances": [[1, 2, 3, 4]]}


@pytest.fixture
def engine(tmp_path, monkeypatch):
    make_losable(monkeypatch)
    return OnnxRuntimeEngine.load(row_encoding(tmp_path), device="cpu")


async def test_a_device_that_is_lost_is_told_to_everybody_and_nothing_answers_in_its_place(engine, registry):
    app = create_app(Settings.load(), engines={"encoder": lambda: engine}, registry=registry)
    async with client_of(app) as client:
        before = await client.post("/predict", json=ROW)
        lose_device(engine._session)
        answers = [await client.post("/predict", json=ROW) for _ in range(4)]
        ready = await client.get("/readyz")

    assert before.json() == {"predictions": [[3, 5, 7, 9]]}
    assert {answer.status_code for answer in answers} == {500}
    assert all(answer.json()["error"]["reason"] == "model_error" for answer in answers)
    assert ready.status_code == 503
    assert WHAT_IT_SAYS in ready.json()["reasons"]["encoder"]
