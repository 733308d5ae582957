"""What other people's servers say of their models, as they say it."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
import pytest

from redserve.bench.mistakes import BenchError
from redserve.bench.prepare import Ask, prepare

Answers = dict[str, tuple[int, object]]
"""Status and JSON by `METHOD /path`; what is not there is 404."""

INPUTS = [
    {"name": "ids", "datatype": "INT64", "shape": [-1, -1]},
    {"name": "text", "datatype": "BYTES", "shape": [-1, 1]},
]
MODEL = {"name": "m", "inputs": INPUTS, "outputs": []}
TRITON: Answers = {
    "GET /v2": (200, {"name": "triton", "version": "2.73.0", "extensions": []}),
    "POST /v2/repository/index": (200, [{"name": "m", "version": "1", "state": "READY"}]),
    "GET /v2/models/m": (200, MODEL),
    "POST /v2/models/m/infer": (200, {"outputs": []}),
}
KSERVE: Answers = {key: value for key, value in TRITON.items() if "repository" not in key} | {
    "GET /v2/models": (200, {"models": ["m"]})
}


headers_seen: list[list[tuple[str, str]]] = []


@pytest.fixture
def serve() -> Iterator[Callable[[Answers], str]]:
    """`serve(answers)`: where they are given."""
    with ExitStack() as running:

        def start(answers: Answers) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    headers_seen.append(self.headers.items())
                    self.rfile.read(int(self.headers.get("Content-Length", "0")))
                    status, content = answers.get(f"{self.command} {self.path}", (404, {"error": "unknown"}))
                    body = json.dumps(content).encode()
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

                do_POST = do_GET  # noqa: N815

                def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                    """Say nothing."""

            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            running.callback(thread.join)
            running.callback(server.server_close)
            running.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        yield start


@pytest.mark.parametrize("answers", [TRITON, KSERVE], ids=["as Triton", "as KServe"])
def test_another_server_of_the_open_inference_protocol_is_asked_for_its_model_and_spoken_to_in_it(serve, answers):
    prepared = prepare(Ask(url=serve(answers), rows=2))

    assert prepared.form == "v2"
    assert prepared.path == "/v2/models/m/infer"
    assert prepared.target is not None
    assert prepared.target.server_name == "triton"
    body = orjson.loads(prepared.requests[0].partition(b"\r\n\r\n")[2])
    assert [(entry["name"], entry["datatype"], entry["shape"][0]) for entry in body["inputs"]] == [
        ("ids", "INT64", 2),
        ("text", "BYTES", 2),
    ]


def test_made_up_requests_differ_and_are_the_same_for_the_same_seed(serve):
    floats = {"name": "x", "datatype": "FP32", "shape": [-1, 3]}
    url = serve(TRITON | {"GET /v2/models/m": (200, MODEL | {"inputs": [floats]})})

    first, again = prepare(Ask(url=url)), prepare(Ask(url=url))
    assert len(set(first.requests)) == 64
    assert first.requests == again.requests
    assert first.requests != prepare(Ask(url=url, seed=1000)).requests


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({}, "does not say which models it serves"),
        (TRITON | {"POST /v2/repository/index": (200, [{"name": "a"}, {"name": "b"}])}, "--model a | b"),
        (TRITON | {"GET /v2/models/m": (400, {"error": "not ready"})}, "not ready"),
        (TRITON | {"GET /v2/models/m": (200, {"inputs": []})}, "does not say what 'm' takes"),
        (TRITON | {"GET /v2/models/m": (200, {"inputs": [{"name": "x"}]})}, "no input of the Open Inference Protocol"),
        (
            TRITON | {"GET /v2/models/m": (200, {"inputs": [{"name": "x", "datatype": "BF16", "shape": [-1]}]})},
            "input 'x' is BF16",
        ),
        (TRITON | {"POST /v2/models/m/infer": (500, {"error": "on fire"})}, "on fire"),
    ],
)
def test_a_server_that_cannot_be_measured_so_is_told_from_why(serve, answers, says):
    with pytest.raises(BenchError) as raised:
        prepare(Ask(url=serve(answers)))

    assert says in str(raised.value)


def test_headers_of_the_user_and_the_deadline_go_with_every_request(serve):
    prepared = prepare(Ask(url=serve(TRITON), headers={"Authorization": "Bearer k"}, deadline_s=0.25))

    assert b"\r\nAuthorization: Bearer k\r\n" in prepared.requests[0]
    assert b"\r\nX-Request-Timeout-Ms: 250\r\n" in prepared.requests[-1]


def test_a_header_of_the_user_takes_the_place_of_ours_in_the_first_request_too(serve):
    headers_seen.clear()
    url = serve({"POST /mine": (200, {})})
    prepared = prepare(Ask(url=f"{url}/mine", body="{}", headers={"content-type": "text/plain"}))

    assert [value for name, value in headers_seen[0] if name.lower() == "content-type"] == ["text/plain"]
    assert prepared.requests[0].lower().count(b"content-type") == 1


@pytest.mark.parametrize(
    ("deadline_s", "sent"), [(0.0005, b"0.5"), (0.0025, b"2.5"), (0.00005, b"0.05"), (30.0, b"30000")]
)
def test_a_deadline_is_sent_as_it_is(serve, deadline_s, sent):
    prepared = prepare(Ask(url=serve(TRITON), deadline_s=deadline_s))

    assert b"\r\nX-Request-Timeout-Ms: %b\r\n" % sent in prepared.requests[0]


@pytest.mark.parametrize("url", ["http://", "http://h:port", "ftp://h", "http://h:99999999"])
def test_an_address_that_is_none_is_said_to_be_none(url):
    with pytest.raises(BenchError):
        prepare(Ask(url=url))
