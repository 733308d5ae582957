"""The same bytes through the fast door and through ASGI: the same answers byte for byte, the same numbers and log.

Three servers of the same model, which differ in the door alone: the fast one, ASGI, and ASGI without its short way.
What changes from one answer to the next, the date and the measured times, is taken out.
"""

import gzip
import json
import logging
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import httpx2
import numpy as np
import pytest
from live_app import LiveApp
from prometheus_client import CollectorRegistry, generate_latest
from starlette.middleware.gzip import GZipMiddleware

from redserve import demo
from redserve.server import Settings, create_app
from redserve.server.fast_door import FastDoor
from redserve.server.http_limits import HttpLimits
from redserve.server.http_protocol import HttpProtocol
from redserve.server.runner import Server

LIMIT_S = 20.0
KEY = "a-key-for-inference"
ROW = demo.samples()[0]["pixels"]
GOOD = json.dumps({"instances": [ROW]}).encode()
ROWS = np.array([ROW, ROW], np.float32)
V2_TAIL = ROWS.tobytes()
V2_ENTRY = {"name": "pixels", "shape": [2, 64], "datatype": "FP32"}
V2_JSON = json.dumps({"inputs": [{**V2_ENTRY, "data": ROWS.tolist()}]}).encode()
V2_HEAD = json.dumps({"inputs": [{**V2_ENTRY, "parameters": {"binary_data_size": len(V2_TAIL)}}]}).encode()
V2 = "/v2/models/digits/infer"


NAMES = ("fast", "asgi", "long")


class Pair:
    """The fast door, and ASGI in both of its ways."""

    def __init__(self, stack: ExitStack, **settings: object) -> None:
        self.registries: dict[str, CollectorRegistry] = {}
        self.ports: dict[str, int] = {}
        self.fast_requests = 0
        for name in NAMES:
            registry = self.registries[name] = CollectorRegistry()
            app = create_app(Settings.load({"access_log": True, **settings}), registry=registry)
            door: FastDoor = app.state.redserve.fast_door
            if name != "fast":
                door.is_open = False
            if name == "long":
                app.plain_door = None
            live = LiveApp(app, http=partial(HttpProtocol, limits=HttpLimits(), door=door), server_header=False)
            stack.enter_context(live)
            self.ports[name] = live.port
            until_s = time.monotonic() + LIMIT_S
            while httpx2.get(f"{live.url}/readyz").status_code != 200:
                assert time.monotonic() < until_s

    def exchange(self, *pieces: bytes) -> bytes:
        """What all answer to the same bytes, until they close."""
        fast, asgi, long = (exchange(self.ports[name], *pieces) for name in NAMES)
        assert fast == asgi == long
        return fast

    def numbers(self) -> dict[str, dict[str, float]]:
        """The counters of requests by server."""
        wanted = ("inference_requests", "inference_errors", "inference_request_latency_seconds_count")
        return {
            name: {
                line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
                for line in generate_latest(registry).decode().splitlines()
                if line.startswith(wanted) and "_created" not in line
            }
            for name, registry in self.registries.items()
        }


def exchange(port: int, *pieces: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = b""
        for piece in pieces:
            connection.sendall(piece)
        while chunk := connection.recv(65_536):
            received += chunk
    return same(received)


def same(received: bytes) -> bytes:
    """Without what differs each time."""
    received = re.sub(rb"date: [^\r]*", b"date: -", received)
    return re.sub(rb"dur=[0-9.]+", b"dur=-", received)


def request(
    path: str = "/predict",
    body: bytes = GOOD,
    *headers: str,
    method: str = "POST",
    version: str = "1.1",
    host: str = "Host: test",
    length: str | None = None,
    content_type: str | None = "application/json",
    close: bool = True,
) -> bytes:
    lines = [f"{method} {path} HTTP/{version}", host]
    lines += [f"Content-Type: {content_type}"] if content_type else []
    lines += [f"Content-Length: {len(body) if length is None else length}", *headers]
    lines += ["Connection: close"] if close else []
    return "\r\n".join([*lines, "", ""]).encode() + body


CHUNKED = b"POST /predict HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
CASES = {
    "rows": (request(), 200),
    "the model by name": (request("/predict/digits"), 200),
    "columns": (request(body=json.dumps({"inputs": {"pixels": [ROW]}}).encode()), 200),
    "objects": (request(body=json.dumps({"instances": [{"pixels": ROW}]}).encode()), 200),
    "an array file": (request(body=ROWS.tobytes(), content_type="application/octet-stream"), 200),
    "v2 in JSON": (request(V2, V2_JSON), 200),
    "v2 with binary tensors": (request(V2, V2_HEAD + V2_TAIL, f"Inference-Header-Content-Length: {len(V2_HEAD)}"), 200),
    "v2 of a version": (request("/v2/models/digits/versions/1/infer", V2_JSON), 200),
    "v2 compressed both ways": (
        request(V2, gzip.compress(V2_JSON), "Content-Encoding: gzip", "Accept-Encoding: gzip"),
        200,
    ),
    "a compressed body": (request("/predict", gzip.compress(GOOD), "Content-Encoding: gzip"), 200),
    "a body of many rows": (request(body=json.dumps({"instances": [ROW] * 700}).encode()), 200),
    "no content type": (request(content_type=None), 200),
    "a query": (request("/predict?now"), 200),
    "a quoted path": (request("/predict/d%69gits"), 200),
    "an absolute URL": (request("http://test/predict"), 200),
    "a budget": (request("/predict", GOOD, "X-Request-Timeout-Ms: 5000"), 200),
    "expects to be asked": (request("/predict", GOOD, "Expect: 100-continue"), 200),
    "chunked": (CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD), 200),
    "HTTP/1.0": (request(version="1.0"), 200),
    "asks for another protocol": (request("/predict", GOOD, "Upgrade: h2c", close=False), None),
    "an unknown model": (request("/predict/nobody"), 404),
    "an unknown version": (request("/v2/models/digits/versions/7/infer", V2_JSON), 404),
    "no JSON": (request(body=b"{"), 400),
    "an empty body": (request(body=b""), 400),
    "ragged rows": (request(body=b'{"instances": [[1, 2], [3]]}'), 400),
    "too large for float32": (request(body=json.dumps({"instances": [[1e300] * 64]}).encode()), 400),
    "a wrong length of rows": (request(body=b'{"instances": [[1, 2]]}'), 400),
    "v2 with a wrong name": (request(V2, V2_JSON.replace(b"pixels", b"pixel")), 400),
    "a wrong budget": (request("/predict", GOOD, "X-Request-Timeout-Ms: soon"), 400),
    "two budgets": (request("/predict", GOOD, "X-Request-Timeout-Ms: 5000", "X-Request-Timeout-Ms: 6000"), 400),
    "an empty budget": (request("/predict", GOOD, "X-Request-Timeout-Ms:"), 400),
    "two codings": (request("/predict", GOOD, "Content-Encoding: gzip", "Content-Encoding: gzip"), 415),
    "lists beyond measure": (request(body=b'{"instances": [' + b"[]," * 400_000 + b"[]]}"), 413),
    "another type": (request(content_type="text/csv"), 415),
    "another coding": (request("/predict", GOOD, "Content-Encoding: br"), 415),
    "declared too long": (request(length=str(2**30), body=b"x"), 413),
    "declared far too long": (request(length="9" * 19, body=b"x"), 413),
    "no length": (request(length=""), 400),
    "another length": (request("/predict", GOOD, "Content-Length: 5"), 400),
    "a GET": (request(method="GET", body=b"", content_type=None), 405),
    "a PUT": (request(method="PUT"), 405),
    "another path": (request("/predicts"), 404),
    "no host": (request(host="A: b"), 400),
}


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(stack)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(stack, inference_keys=KEY)


@pytest.mark.parametrize("case", CASES)
def test_both_doors_give_the_same_answer(pair: Pair, case: str):
    sent, status = CASES[case]
    if status is None:
        sent += request()  # the connection ends with the second request
        status = 200

    answer = pair.exchange(sent)

    assert answer.startswith((b"HTTP/1.1 %d " % status, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 %d " % status))


@pytest.mark.parametrize(
    "header",
    ["A: b", f"X-API-Key: {KEY}", f"Authorization: Bearer {KEY}", "X-API-Key: another", "Authorization: Basic x"],
)
@pytest.mark.parametrize("path", ["/predict", V2, "/predict/nobody"])
def test_both_doors_ask_for_the_same_keys(guarded: Pair, header: str, path: str):
    answer = guarded.exchange(request(path, GOOD if path != V2 else V2_JSON, header))

    assert (b" 401 " in answer.splitlines()[0]) == (KEY not in header)


def test_the_fast_door_answers_in_pieces_wherever_they_are_cut(pair: Pair):
    sent = request(body=b'{"instances": [[' + b",".join([b"1"] * 64) + b"]]}")
    whole = pair.exchange(sent)

    assert whole.startswith(b"HTTP/1.1 200 ")
    for cut in range(1, len(sent)):
        assert exchange(pair.ports["fast"], sent[:cut], sent[cut:]) == whole
    assert exchange(pair.ports["fast"], *[sent[index : index + 1] for index in range(len(sent))]) == whole


def test_requests_in_one_piece_are_answered_in_their_order(pair: Pair):
    rows = [[float(number)] * 64 for number in range(5)]
    bodies = [json.dumps({"instances": [row] * (number + 1)}).encode() for number, row in enumerate(rows)]
    first = [request(body=body, close=False) for body in bodies]
    pages = [request("/livez", b"", method="GET", content_type=None, close=False)]

    answer = pair.exchange(b"".join([*first[:3], *pages, *first[3:], request()]))

    counts = [len(json.loads(line)["predictions"]) for line in re.findall(rb'{"predictions".*?}\]}', answer)]
    assert counts == [1, 2, 3, 4, 5, 1]


def test_a_connection_goes_on_after_an_answer_and_after_a_mistake(pair: Pair):
    with socket.create_connection(("127.0.0.1", pair.ports["fast"]), timeout=LIMIT_S) as connection:
        for body, status in ((GOOD, 200), (b"{", 400), (GOOD, 200), (b"", 400), (GOOD, 200)):
            connection.sendall(request(body=body, close=False))
            answer = b""
            while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
                answer += connection.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert b"connection: close" not in answer


def test_a_body_that_was_refused_early_is_passed_over_and_the_next_request_answered(pair: Pair):
    body = b"x" * (16 * 2**20 + 1)

    answer = pair.exchange(request(body=body, close=False) + request())

    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"413", b"200"]


def test_both_doors_keep_the_same_numbers(pair: Pair):
    before = pair.numbers()
    for sent, status in CASES.values():
        pair.exchange(sent + (request() if status is None else b""))
    after = pair.numbers()

    grown = {name: {key: value - before[name].get(key, 0) for key, value in after[name].items()} for name in after}
    assert grown["fast"] == grown["asgi"] == grown["long"]
    assert sum(value for key, value in grown["fast"].items() if key.startswith("inference_requests_total")) > 30
    assert after["fast"]["inference_requests_in_flight"] == 0


def test_both_doors_write_the_same_log(pair: Pair):
    records: list[logging.LogRecord] = []
    handler, logger = logging.Handler(), logging.getLogger("redserve.access")
    handler.emit = records.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        pair.exchange(request())
        pair.exchange(request(body=b"{"))
    finally:
        logger.removeHandler(handler)

    fields = ("client", "method", "path", "status", "sent_bytes")
    said = [{key: getattr(record, key) for key in fields} for record in records]
    assert said[0] == said[1] == said[2]
    assert said[3] == said[4] == said[5]
    assert [entry["status"] for entry in said] == [200, 200, 200, 400, 400, 400]
    assert said[0]["path"] == "/predict"


@pytest.mark.parametrize("is_added", [False, True])
def test_middleware_that_was_added_to_the_application_sees_every_request(is_added: bool):
    app = create_app(Settings(port=0), registry=CollectorRegistry())
    if is_added:
        app.add_middleware(GZipMiddleware)

    assert (Server(app, Settings(port=0)).config.http.keywords["door"].target_of(b"/predict") is None) == is_added
