"""Bodies in other forms than JSON: compressed, `.npy`, bare rows."""

import asyncio
import gzip
import io
import json
import threading
import zlib
from time import perf_counter

import numpy as np
import pytest
from in_process import client_of
from requests_of import LENGTH, binary_request, npy_of, request_of

from puppet_engine import WAIT_S, PuppetEngine
from redserve.protocol import PredictJson
from redserve.server import Settings, create_app
from redserve.server.targets import ONLY_MODEL

INFER = "/v2/models/puppet/infer"
PACKED = {"gzip": (gzip.compress, gzip.decompress), "deflate": (zlib.compress, zlib.decompress)}


@pytest.fixture
def engine():
    return PuppetEngine()


@pytest.fixture
def app(engine, registry):
    return create_app(Settings.load(), engines={"puppet": lambda: engine}, registry=registry)


@pytest.mark.parametrize("inward", ["", "gzip", "deflate"])
@pytest.mark.parametrize("outward", ["", "gzip", "deflate"])
async def test_bodies_are_compressed_both_ways(app, inward, outward):
    rows = [[float(row), 1.0] for row in range(500)]
    body, headers = binary_request(rows, parameters={"binary_data_output": True})
    if inward:
        body, headers = PACKED[inward][0](body), {**headers, "content-encoding": inward}
    async with (
        client_of(app) as client,
        client.stream("POST", INFER, content=body, headers={**headers, "accept-encoding": outward}) as answer,
    ):
        raw = b"".join([part async for part in answer.aiter_raw()])

    assert answer.status_code == 200
    assert answer.headers.get("content-encoding", "") == outward
    assert ("vary" in answer.headers) == bool(outward)
    assert int(answer.headers["content-length"]) == len(raw)
    plain = PACKED[outward][1](raw) if outward else raw
    assert np.frombuffer(plain[int(answer.headers[LENGTH]) :], "<f4").reshape(-1, 2).tolist() == [
        [2 * first, 2 * second] for first, second in rows
    ]


async def test_small_answers_errors_and_control_are_never_compressed(app):
    headers = {"accept-encoding": "gzip"}
    async with client_of(app) as client:
        answers = [
            await client.post(INFER, json=request_of([[1, 2]]), headers=headers),
            await client.post(INFER, json=request_of([[1]] * 1_000), headers=headers),
            await client.get("/v2/models/puppet/config", headers=headers),
        ]

    assert [answer.status_code for answer in answers] == [200, 400, 200]
    assert not any("content-encoding" in answer.headers for answer in answers)


@pytest.mark.parametrize("path", ["/predict", INFER])
async def test_a_compressed_body_is_unpacked_up_to_the_limit_only(engine, registry, path):
    app = create_app(Settings.load({"max_body_mib": 1}), engines={"puppet": lambda: engine}, registry=registry)
    async with client_of(app) as client:
        bomb = await client.post(path, content=gzip.compress(b" " * (2**20 + 1)), headers={"content-encoding": "gzip"})
        cut_off = await client.post(path, content=gzip.compress(b"{}")[:-3], headers={"content-encoding": "gzip"})
        unknown = await client.post(path, content=b"{}", headers={"content-encoding": "br"})

    assert [bomb.status_code, cut_off.status_code, unknown.status_code] == [413, 400, 415]


@pytest.mark.parametrize("encoding", PACKED)
async def test_compressed_bodies_are_read_at_predict_too(app, encoding):
    body = PACKED[encoding][0](b'{"instances": [[1, 2]]}')
    headers = {"content-type": "application/json", "content-encoding": encoding}
    async with client_of(app) as client:
        answer = await client.post("/predict", content=body, headers=headers)

    assert answer.json() == {"predictions": [[2.0, 4.0]]}


async def test_what_threads_unpack_and_decode_shares_the_bound_of_bodies_and_gives_its_part_back(engine, registry):
    settings = Settings.load({"max_queue_mib": 8, "max_body_mib": 2, "max_queue_rows": 100_000})
    app = create_app(settings, engines={"puppet": lambda: engine}, registry=registry)
    bodies = app.state.redserve.service.terms.bodies
    rows = json.dumps({"instances": [[1, 2]] * 20_000}).encode()
    async with client_of(app) as client:
        for headers, body in (({}, rows), ({"content-encoding": "gzip"}, gzip.compress(rows))):
            bodies.hold(2**23 - 100)
            full = await client.post("/predict", content=body, headers=headers)
            bodies.release(2**23 - 100)
            fits = await client.post("/predict", content=body, headers=headers)

            assert (full.status_code, full.json()["error"]["reason"]) == (503, "queue_full")
            assert fits.status_code == 200
        bodies.hold(2**23)


async def test_a_large_body_whose_client_has_left_is_not_read(app, monkeypatch):
    read, answers = [], []
    monkeypatch.setattr(PredictJson, "weigh", lambda _, body, **__: read.append(body) or 0)
    gate, is_answered = threading.Event(), asyncio.Event()
    rows = [json.dumps({"instances": [[value, 2]] * 10_000}).encode() for value in (1, 3)]

    def answer(reply):
        answers.append(reply.status)
        is_answered.set()

    async with client_of(app):
        service = app.state.redserve.service
        service.terms.bodies.reader.submit(gate.wait, WAIT_S)
        left, stays = (service.infer(ONLY_MODEL, {}, body, answer, arrived_s=perf_counter()) for body in rows)
        left.cancel()
        gate.set()
        await asyncio.wait_for(is_answered.wait(), WAIT_S)

    assert read == rows[1:]
    assert (stays.model, answers) == ("puppet", [413])


async def test_npy_at_predict_is_answered_as_npy(app):
    body = npy_of(np.array([[1, 2], [3, 4]], np.float32))
    async with client_of(app) as client:
        for content_type in ("application/x-npy", "Application/X-Npy; charset=binary"):
            answer = await client.post("/predict", content=body, headers={"content-type": content_type})

            assert answer.headers["content-type"] == "application/x-npy"
            assert np.load(io.BytesIO(answer.content)).tolist() == [[2.0, 4.0], [6.0, 8.0]]


async def test_bare_rows_at_predict_are_answered_as_predictions(app):
    headers = {"content-type": "application/octet-stream"}
    async with client_of(app) as client:
        answer = await client.post("/predict", content=np.float32([1, 2, 3, 4]).tobytes(), headers=headers)
        odd = await client.post("/predict", content=b"12345", headers=headers)

    assert answer.json() == {"predictions": [[2.0, 4.0], [6.0, 8.0]]}
    assert odd.status_code == 400
    assert "takes 8 bytes, the body has 5" in odd.json()["error"]["message"]
