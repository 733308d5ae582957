"""Mistakes under `/v2` on the real server, each beside a good request: a 4xx in words for one, rows for the other."""

import asyncio
import gzip
import json

import httpx2
import numpy as np
import pytest
from onnx import TensorProto
from puppet_server import LIMIT_S, Exchange, PuppetServer, ask, until

from engine.onnx_models import identity
from redserve.server import Settings, create_app

INFER = "/v2/models/puppet/infer"
ROUTE = {"route": "/v2/models/{model}/infer", "model": "puppet"}
DEEP = 100_000


@pytest.fixture(scope="module")
def server():
    with PuppetServer(max_body_mib=1, max_queue_rows=1_000, body_timeout_s=0.3) as server:
        yield server


def post(content, *, headers="", path=INFER):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return f"POST {path} HTTP/1.1\r\nHost: test\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def x_of(**fields):
    """An entry of `inputs` that is right, but for `fields`; `None` takes one away."""
    entry = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [3, 4]} | fields
    return {key: value for key, value in entry.items() if value is not None}


def wrong(**fields):
    return {"inputs": [x_of(**fields)]}


def binary(tail, *, length=None, **fields):
    """A request whose `x` is the binary `tail`, with the length of its JSON, or another, in the header."""
    entry = x_of(**({"data": None, "parameters": {"binary_data_size": len(tail)}} | fields))
    head = json.dumps({"inputs": [entry]}).encode()
    length = str(len(head)) if length is None else length
    return post(head + tail, headers=f"Inference-Header-Content-Length: {length}\r\n")


GOOD = post({"inputs": [x_of()]})
TAIL = np.array([3, 4], "<f4").tobytes()
X_BEFORE_DATA = b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": '
SIZE = {"parameters": {"binary_data_size": 8}}

MISTAKES = {
    "nothing": post(b""),
    "not JSON": post(b"inputs"),
    "cut off": post(b'{"inputs": [{"name": "x"'),
    "no object": post([]),
    "no inputs": post({}),
    "none of the inputs": post({"inputs": []}),
    "another input": post(wrong(name="z")),
    "an input too many": post({"inputs": [x_of(), x_of(name="z")]}),
    "an input twice": post({"inputs": [x_of(), x_of()]}),
    "no name": post(wrong(name=None)),
    "no shape": post(wrong(shape=None)),
    "a shape that is none": post(wrong(shape="1,2")),
    "a negative size": post(wrong(shape=[-1, 2])),
    "an axis too few": post(wrong(shape=[2])),
    "an axis too many": post(wrong(shape=[1, 1, 2])),
    "another size": post(wrong(shape=[1, 3], data=[1, 2, 3])),
    "a product beyond 64 bits": post(wrong(shape=[2**62, 2**62])),
    "a product that wraps around to what is there": post(wrong(shape=[2**63 + 1, 2])),
    "bytes beyond 64 bits": post(wrong(shape=[2**61, 2])),
    "a size of 5,000 digits": post(b'{"inputs": [{"name": "x", "shape": [' + b"9" * 5_000 + b", 2]}]}"),
    "no rows": post(wrong(shape=[0, 2], data=[])),
    "values too few": post(wrong(data=[3])),
    "values too many": post(wrong(data=[3, 4, 5])),
    "nested otherwise": post(wrong(shape=[2, 2], data=[[3, 4, 5, 6]])),
    "ragged": post(wrong(shape=[2, 2], data=[[3, 4, 5], [6]])),
    "another datatype": post(wrong(datatype="INT64")),
    "no datatype of the protocol": post(wrong(datatype="FLOAT")),
    "a string for a number": post(wrong(data=["3", 4])),
    "a boolean for a number": post(wrong(data=[True, 4])),
    "null for a number": post(wrong(data=[None, 4])),
    "too large for float32": post(wrong(data=[1e39, 4])),
    "a number out of range": post(
        b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1e400, 4]}]}'
    ),
    "NaN and a number out of range": post(X_BEFORE_DATA + b"[1e400, NaN]}]}"),
    "neither data nor binary": post(wrong(data=None)),
    "both data and binary": post(wrong(**SIZE)),
    "binary that did not come": post(wrong(data=None, **SIZE)),
    "shared memory": post(wrong(data=None, parameters={"shared_memory_region": "r", "shared_memory_byte_size": 8})),
    "binary too short": binary(TAIL[:-1], **SIZE),
    "binary too long": binary(TAIL + b"1", **SIZE),
    "a binary size that is not the shape's": binary(TAIL[:4]),
    "a negative binary size": binary(TAIL, parameters={"binary_data_size": -8}),
    "a binary size in words": binary(TAIL, parameters={"binary_data_size": "8"}),
    "a JSON length in words": binary(TAIL, length="many"),
    "a negative JSON length": binary(TAIL, length="-1"),
    "a JSON length with a sign": binary(TAIL, length="+10"),
    "a JSON length beyond the body": binary(TAIL, length="100000"),
    "a JSON length beyond 32 bits": binary(TAIL, length="4294967297"),
    "a JSON length of 5,000 digits": binary(TAIL, length="9" * 5_000),
    "a JSON length within the JSON": binary(TAIL, length="10"),
    "a JSON length within the data": binary(TAIL, length="120"),
    "a raw body of half a row": binary(TAIL[:4], length="0"),
    "another output": post({"inputs": [x_of()], "outputs": [{"name": "z"}]}),
    "an output twice": post({"inputs": [x_of()], "outputs": [{"name": "y"}, {"name": "y"}]}),
    "classes in words": post({"inputs": [x_of()], "outputs": [{"name": "y", "parameters": {"classification": "2"}}]}),
    "a reserved parameter": post({"inputs": [x_of()], "parameters": {"triton_x": 1}}),
    "a timeout in words": post({"inputs": [x_of()], "parameters": {"timeout": "soon"}}),
    "a negative timeout": post({"inputs": [x_of()], "parameters": {"timeout": -1}}),
    "a header that is no deadline": post({"inputs": [x_of()]}, headers="X-Request-Timeout-Ms: nan\r\n"),
    "deep nesting": post(b'{"inputs": ' + b"[" * DEEP),
    "deep nesting that ends": post(b'{"inputs": ' + b"[" * DEEP + b"]" * DEEP + b"}"),
    "deep data": post(X_BEFORE_DATA + b"[" * DEEP + b"]" * DEEP + b"}]}"),
    "deep data beside NaN": post(b'{"id": NaN, "inputs": ' + b"[" * DEEP + b"]" * DEEP + b"}"),
    "deep objects": post(b'{"parameters": ' + b'{"a":' * DEEP),
    "no UTF-8": post(b'{"id": "\xff", "inputs": []}'),
    "half a character": post(b'{"id": "\\ud800", "inputs": []}'),
    "not gzip": post(b"hello", headers="Content-Encoding: gzip\r\n"),
    "gzip cut off": post(gzip.compress(b"hello")[:-4], headers="Content-Encoding: gzip\r\n"),
}

BOMB = gzip.compress(b" " * (2**20 + 1))
OTHERS = {
    "too large": (post(b" " * (2**20 + 1)), 413),
    "too large once it is unpacked": (
        post(gzip.compress(b" " * (2**20 + 1)), headers="Content-Encoding: gzip\r\n"),
        413,
    ),
    "too many rows": (post(wrong(shape=[1_001, 2], data=[0] * 2_002)), 413),
    "an encoding that is not read": (post(b"{}", headers="Content-Encoding: br\r\n"), 415),
    "a body that does not come": (GOOD[:-3], 408),
    "another model": (post({}, path="/v2/models/nobody/infer"), 404),
    "another version": (post({}, path="/v2/models/puppet/versions/7/infer"), 404),
    "a version in words": (post({}, path="/v2/models/puppet/versions/latest/infer"), 404),
    "another path": (post({}, path="/v2/models/puppet/explain"), 404),
    "a model in another folder": (post({}, path="/v2/models/..%2Fpuppet/infer"), 404),
    "another method": (GOOD.replace(b"POST", b"PUT", 1), 405),
    "a model that fails": (post(wrong(data=[-1, 4])), 500),
}


async def beside(server, request):
    return await asyncio.gather(ask(server.port, request), ask(server.port, GOOD))


def is_right(good):
    status, answer = good
    return status == 200 and answer["outputs"][0]["data"] == [6.0, 8.0]


@pytest.mark.parametrize("request_bytes", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_a_400_in_words_counted_once_and_its_neighbour_is_answered(server, request_bytes):
    before = server.counts().reasons

    (status, answer), good = asyncio.run(beside(server, request_bytes))

    assert status == 400, answer
    assert answer.keys() == {"error"}
    assert 0 < len(answer["error"]) < 3_000
    assert is_right(good)
    assert server.counts().reasons - before == {"bad_request": 1}
    assert server.in_flight == 0


@pytest.mark.parametrize(("request_bytes", "status"), OTHERS.values(), ids=OTHERS)
def test_another_mistake_has_its_status_in_words_and_its_neighbour_is_answered(server, request_bytes, status):
    before = server.counts().codes

    bad, good = asyncio.run(beside(server, request_bytes))

    assert bad[0] == status, bad
    assert bad[1].keys() == {"error"}
    assert bad[1]["error"]
    assert is_right(good)
    assert server.counts().codes - before == {status: 1, 200: 1}


def chunked(body, chunks):
    """`body` in so many chunks; white space goes before it."""
    padded = body.rjust(chunks)
    head = f"POST {INFER} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"1\r\n%c\r\n" % byte for byte in padded) + b"0\r\n\r\n"


@pytest.mark.parametrize("chunks", [1_000, 65_537, 1_000_000])
def test_a_body_in_any_number_of_chunks_is_read(server, chunks):
    body = json.dumps({"inputs": [x_of()]}).encode()

    assert is_right(asyncio.run(ask(server.port, chunked(body, chunks))))


def test_a_deep_index_is_refused(server):
    for body in (b"[" * 250_000 + b"]" * 250_000, b"[" * 5_000 + b"]" * 5_000):
        status, answer = asyncio.run(ask(server.port, post(body, path="/v2/repository/index")))

        assert status in (400, 413)
        assert isinstance(answer["error"], str)
    assert is_right(asyncio.run(ask(server.port, GOOD)))


def test_a_full_queue_is_a_503_and_a_deadline_a_504():
    late = post({"inputs": [x_of()], "parameters": {"timeout": 20_000}})

    async def crowd(server):
        server.engine.shut()
        runs = await Exchange(server.port, GOOD).send()
        assert await asyncio.to_thread(server.engine.began.wait, LIMIT_S)
        expired = await ask(server.port, late)
        waits = await Exchange(server.port, GOOD).send()
        await asyncio.to_thread(until, lambda: server.queued_rows == 1)
        refused = await ask(server.port, GOOD)
        server.engine.open()
        answers = [await runs.answer(), await waits.answer()]
        for exchange in (runs, waits):
            await exchange.leave()
        return expired, refused, answers

    with PuppetServer(max_queue_rows=1) as server:
        expired, refused, answers = asyncio.run(crowd(server))

        assert expired == (504, {"error": "the deadline passed before the request could run"})
        assert refused == (503, {"error": "the queue is full: 1 of 1 rows already wait"})
        assert all(map(is_right, answers))
        assert server.counts().reasons == {"deadline_expired": 1, "queue_full": 1}
        assert server.counts().codes == {200: 2, 503: 1, 504: 1}
        assert server.value("errors_total", **ROUTE, reason="queue_full") == 1


def test_half_precision_is_refused_in_json_and_served_in_binary(serve, registry, tmp_path):
    model = identity(tmp_path, dtype=TensorProto.FLOAT16)
    live = serve(create_app(Settings.load({"model": model}), registry=registry))
    until(lambda: httpx2.get(f"{live.url}/readyz").status_code == 200)
    halves = np.array([[1, 0.5, -2, np.inf]], "<f2").tobytes()
    entry = {"name": "x", "shape": [1, 4], "datatype": "FP16"}
    as_bytes = {**entry, "parameters": {"binary_data_size": 8}}

    def infer(given, tail=b"", *, binary_out):
        head = json.dumps({"inputs": [given], "parameters": {"binary_data_output": binary_out}}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))} if tail else {}
        return httpx2.post(f"{live.url}/v2/models/identity/infer", content=head + tail, headers=headers)

    in_json = infer({**entry, "data": [1, 0.5, -2, 3]}, binary_out=True)
    out_json = infer(as_bytes, halves, binary_out=False)
    answer = infer(as_bytes, halves, binary_out=True)

    assert (in_json.status_code, out_json.status_code, answer.status_code) == (400, 400, 200)
    assert "has to come as binary data" in in_json.json()["error"]
    assert "only comes as binary data" in out_json.json()["error"]
    assert answer.content.endswith(halves)


def test_bfloat16_is_served_in_binary_and_at_predict_as_numbers(serve, registry, tmp_path):
    model = identity(tmp_path, dtype=TensorProto.BFLOAT16)
    live = serve(create_app(Settings.load({"model": model}), registry=registry))
    until(lambda: httpx2.get(f"{live.url}/readyz").status_code == 200)
    halves = np.array([0x3F80, 0x3F00, 0xC000, 0x7F80], "<u2").tobytes()
    entry = {"name": "x", "shape": [1, 4], "datatype": "BF16", "parameters": {"binary_data_size": 8}}
    head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}

    binary = httpx2.post(f"{live.url}/v2/models/identity/infer", content=head + halves, headers=headers)
    metadata = httpx2.get(f"{live.url}/v2/models/identity").json()
    numbers = httpx2.post(f"{live.url}/predict", json={"instances": [[1, 0.5, -2, 3.1]]})
    too_large = httpx2.post(f"{live.url}/predict", json={"instances": [[1, 2, 3, 1e39]]})
    documented = httpx2.get(f"{live.url}/openapi.json")

    assert (binary.status_code, binary.content[-8:]) == (200, halves)
    assert metadata["inputs"] == [{"name": "x", "datatype": "BF16", "shape": [-1, 4]}]
    assert numbers.json() == {"predictions": [[1.0, 0.5, -2.0, 3.09375]]}
    assert (too_large.status_code, too_large.json()["error"]["where"]) == (400, "$.instances[0][3]")
    assert documented.status_code == 200
