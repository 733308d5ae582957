"""Inference by the Open Inference Protocol in process; real clients are in `tests/clients`."""

import asyncio
import json

import numpy as np
import pytest
from in_process import client_of
from requests_of import LENGTH, binary_request, npy_of, request_of, until_queued

from drive_asgi import counted, in_flight, reasons
from puppet_engine import PuppetEngine
from redserve.server import Settings, create_app

INFER = "/v2/models/puppet/infer"
ROUTE = "/v2/models/{model}/infer"


@pytest.fixture
def engine():
    return PuppetEngine()


@pytest.fixture
def app(engine, registry):
    return create_app(Settings.load(), engines={"puppet": lambda: engine}, registry=registry)


def y_of(answer):
    """The one output."""
    (output,) = answer.json()["outputs"]
    return output


async def test_rows_are_answered_with_outputs(app):
    async with client_of(app) as client:
        for path in (INFER, "/v2/models/puppet/versions/1/infer"):
            answer = await client.post(path, json=request_of([[1, 2], [3, 4]], id="seven"))

            assert answer.status_code == 200
            assert answer.headers["content-type"] == "application/json"
            assert answer.json() == {
                "id": "seven",
                "model_name": "puppet",
                "model_version": "1",
                "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [2.0, 4.0, 6.0, 8.0]}],
            }
            assert "server-timing" in answer.headers


@pytest.mark.parametrize("content_type", ["application/json", "application/octet-stream", "text/plain", ""])
async def test_the_content_type_of_a_request_does_not_matter(app, content_type):
    body = json.dumps(request_of([[1, 2]])).encode()
    async with client_of(app) as client:
        answer = await client.post(INFER, content=body, headers={"content-type": content_type})

    assert y_of(answer)["data"] == [2.0, 4.0]


async def test_binary_rows_are_answered_as_binary_where_that_is_asked_for(app):
    body, headers = binary_request([[1, 2]], parameters={"binary_data_output": True})
    async with client_of(app) as client:
        answer = await client.post(INFER, content=body, headers=headers)

    assert answer.headers["content-type"] == "application/octet-stream"
    head, tail = answer.content[: int(answer.headers[LENGTH])], answer.content[int(answer.headers[LENGTH]) :]
    assert json.loads(head)["outputs"][0]["parameters"] == {"binary_data_size": 8}
    assert np.frombuffer(tail, "<f4").tolist() == [2.0, 4.0]
    assert int(answer.headers["content-length"]) == len(answer.content)


async def test_a_request_is_counted_by_its_route_and_model(app, registry):
    async with client_of(app) as client:
        await client.post(INFER, json=request_of([[1, 2]]))
        await client.post("/v2/models/puppet/versions/1/infer", json=request_of([[1, 2]]))
        await client.post(INFER, json={})
        await client.post("/v2/models/nobody/infer", json=request_of([[1, 2]]))
        await client.post("/v2/models/puppet/versions/2/infer", json=request_of([[1, 2]]))

    assert counted(registry) == {
        (ROUTE, "POST", "200", "ok"): 1,
        ("/v2/models/{model}/versions/{version}/infer", "POST", "200", "ok"): 1,
        (ROUTE, "POST", "400", "client_error"): 1,
        (ROUTE, "POST", "404", "client_error"): 1,
        ("/v2/models/{model}/versions/{version}/infer", "POST", "404", "client_error"): 1,
    }
    assert reasons(registry) == {"bad_request": 1, "unknown_model": 1} | {"unknown_model": 1}
    ok = {"route": ROUTE, "method": "POST", "model": "puppet", "code": "200", "outcome": "ok"}
    assert registry.get_sample_value("inference_requests_total", ok) == 1
    assert registry.get_sample_value("inference_batch_size_sum", {"model": "puppet", "version": "1"}) == 2
    assert in_flight(registry) == 0


async def test_it_shares_batches_with_predict(app, engine):
    async with client_of(app) as client:
        engine.shut()
        engine.ran_rows.clear()
        plug = asyncio.create_task(client.post("/predict", json={"instances": [[0, 0]]}))
        await asyncio.to_thread(engine.began.wait, 20)
        asked = [
            asyncio.create_task(client.post(INFER, json=request_of([[1, 2]]))),
            asyncio.create_task(client.post("/predict", json={"instances": [[3, 4], [5, 6]]})),
        ]
        await until_queued(app, 3)
        engine.open()
        by_protocol, by_predict = await asyncio.gather(*asked)
        await plug

    assert engine.ran_rows == [1, 3]
    assert y_of(by_protocol)["data"] == [2.0, 4.0]
    assert by_predict.json() == {"predictions": [[6.0, 8.0], [10.0, 12.0]]}


async def test_what_is_not_finite_passes_here_and_at_predict_it_does_not(app):
    body = b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [NaN, -Infinity]}]}'
    not_finite = np.array([[np.nan, 1]], np.float32)
    async with client_of(app) as client:
        answer = await client.post(INFER, content=body)
        binary, headers = binary_request(not_finite)
        binary_answer = await client.post(INFER, content=binary, headers=headers)
        rows = await client.post(
            "/predict", content=not_finite.tobytes(), headers={"content-type": "application/octet-stream"}
        )

    assert b"[NaN,-Infinity]" in answer.content
    assert b"[NaN,2.0]" in binary_answer.content
    assert (rows.status_code, rows.json()["error"]["where"]) == (400, "x[0][0]")


@pytest.mark.parametrize(("finite", "statuses"), [(True, [400, 400]), (False, [200, 200]), (None, [200, 400])])
async def test_the_setting_decides_for_both_what_is_not_finite(engine, registry, finite, statuses):
    app = create_app(Settings.load({"finite": finite}), engines={"puppet": lambda: engine}, registry=registry)
    body, headers = binary_request([[np.inf, 1]])
    as_npy = npy_of(np.array([[np.inf, 1]], np.float32))
    async with client_of(app) as client:
        under_v2 = await client.post(INFER, content=body, headers=headers)
        at_predict = await client.post("/predict", content=as_npy, headers={"content-type": "application/x-npy"})

    assert [under_v2.status_code, at_predict.status_code] == statuses


async def test_the_timeout_in_the_body_is_the_deadline(app, engine, registry):
    async with client_of(app) as client:
        engine.shut()
        plug = asyncio.create_task(client.post(INFER, json=request_of([[1, 2]])))
        await asyncio.to_thread(engine.began.wait, 20)
        late = await client.post(INFER, json=request_of([[1, 2]], parameters={"timeout": 1_000}))
        engine.open()
        await plug

    assert late.status_code == 504
    assert "deadline" in late.json()["error"]
    assert reasons(registry) == {"deadline_expired": 1}


async def test_more_than_may_wait_is_503_with_the_time_to_come_back(engine, registry):
    app = create_app(Settings.load({"max_queue_rows": 1}), engines={"puppet": lambda: engine}, registry=registry)
    async with client_of(app) as client:
        engine.shut()
        asked = [asyncio.create_task(client.post(INFER, json=request_of([[1, 2]])))]
        await asyncio.to_thread(engine.began.wait, 20)
        asked.append(asyncio.create_task(client.post(INFER, json=request_of([[1, 2]]))))
        await until_queued(app, 1)
        refused = await client.post(INFER, json=request_of([[1, 2]]))
        engine.open()
        answers = await asyncio.gather(*asked)

    assert [answer.status_code for answer in answers] == [200, 200]
    assert refused.status_code == 503
    assert refused.json() == {"error": "the queue is full: 1 of 1 rows already wait"}
    assert int(refused.headers["retry-after"]) >= 1
