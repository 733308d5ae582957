"""Bad requests on the real server, each with a good one beside it: a clear 4xx for one, an answer for the other."""

import asyncio
import json

import pytest
from puppet_server import LIMIT_S, Exchange, PuppetServer, ask, request_of, until

GOOD = [[3, 4]]
RIGHT = (200, {"predictions": [[6.0, 8.0]]})
DEEP = 100_000
PROMPT_S = 5.0


@pytest.fixture(scope="module")
def server():
    with PuppetServer(max_batch_size=32, max_body_mib=1, max_queue_rows=1_000, body_timeout_s=0.3) as server:
        yield server


def beside(server, request):
    """The answers to `request` and to a good one at the same time, which must not wait for the other."""

    async def promptly():
        async with asyncio.timeout(PROMPT_S):
            return await ask(server.port, request_of(GOOD))

    async def both():
        return await asyncio.gather(ask(server.port, request), promptly())

    return asyncio.run(both())


def post(content, headers="Content-Type: application/json\r\n"):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return f"POST /predict HTTP/1.1\r\nHost: test\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(coding):
    return f"POST /predict HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n".encode()


BODIES = {
    "empty body": b"",
    "not JSON": b"instances",
    "cut off": b'{"instances": [[3, 4',
    "two bodies": b'{"instances": [[3, 4]]}{"instances": [[3, 4]]}',
    "a NUL at the end": b'{"instances": [[3, 4]]}\0',
    "no UTF-8": b'{"instances": [["\xff"]]}',
    "UTF-16": '{"instances": [[3, 4]]}'.encode("utf-16"),
    "half a character": b'{"instances": [["\\ud800", 4]]}',
    "deep nesting": b'{"instances": ' + b"[" * DEEP,
    "deep nesting that ends": b'{"instances": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep nesting in a field that is not read": b'{"instances": [[3, 4]], "z": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep objects": b'{"a":' * DEEP,
    "a huge number": b'{"instances": [[1e400, 4]]}',
    "a long number": b'{"instances": [[' + b"9" * 10_000 + b", 4]]}",
    "a huge exponent": b'{"instances": [[1e' + b"9" * 10_000 + b", 4]]}",
    "too large for float32": {"instances": [[1e39, 4]]},
    "NaN": b'{"instances": [[NaN, 4]]}',
    "Infinity": b'{"instances": [[3, -Infinity]]}',
    "null": {"instances": [[None, 4]]},
    "null for a row": {"instances": [None]},
    "null for all": b"null",
    "a list for all": [[3, 4]],
    "a number for rows": {"instances": 3},
    "a string": {"instances": [["3", 4]]},
    "a boolean": {"instances": [[True, 4]]},
    "ragged": {"instances": [[3, 4], [3]]},
    "no rows": {"instances": []},
    "empty rows": {"instances": [[]]},
    "a row too long": {"instances": [[3, 4, 5]]},
    "a dimension too many": {"instances": [[[3, 4]]]},
    "a dimension too few": {"instances": [3, 4]},
    "an unknown input": {"inputs": {"z": [[3, 4]]}},
    "an input too many": {"inputs": {"x": [[3, 4]], "z": [[3, 4]]}},
    "a row of an unknown input": {"instances": [{"z": [3, 4]}]},
    "rows and objects": {"instances": [[3, 4], {"x": [3, 4]}]},
    "unknown field": {"instances": [[3, 4]], "signature": "x"},
    "two forms": {"instances": [[3, 4]], "inputs": {"x": [[3, 4]]}},
}


@pytest.mark.parametrize("content", BODIES.values(), ids=BODIES)
def test_a_body_with_a_mistake_is_a_400_and_its_neighbour_is_answered(server, content):
    (status, answer), good = beside(server, post(content))

    assert (status, answer["error"]["reason"]) == (400, "bad_request")
    assert answer["error"]["message"]
    assert len(str(answer)) < 3_000
    assert good == RIGHT


OTHERS = {
    "too large": (post(b" " * (2**20 + 1)), 413, "too_large"),
    "too many rows": (request_of(GOOD * 20_000), 413, "too_large"),
    "no JSON by its own words": (post(b"3,4", "Content-Type: text/csv\r\n"), 415, "unsupported_media_type"),
    "a form": (post(b"x=3", "Content-Type: application/x-www-form-urlencoded\r\n"), 415, "unsupported_media_type"),
    "brotli": (post(b"x", "Content-Encoding: br\r\n"), 415, "unsupported_media_type"),
    "a length too short": (post(b"").replace(b": 0\r\n\r\n", b': 9\r\n\r\n{"instances": []}'), 400, "bad_request"),
    "a length too long": (post(b"").replace(b": 0\r\n", b": 9\r\n"), 408, "slow_request"),
    "the same length twice": (post(b"12345", "Content-Length: 5\r\n"), 400, "bad_request"),
    "a list of lengths": (post(b"12345").replace(b": 5\r\n", b": 5, 5\r\n"), 400, "bad_request"),
    "a length with a sign": (post(b"12345").replace(b": 5\r\n", b": +5\r\n"), 400, "bad_request"),
    "a length in hexadecimal": (post(b"12345").replace(b": 5\r\n", b": 0x5\r\n"), 400, "bad_request"),
    "no length": (post(b"").replace(b": 0\r\n", b":\r\n"), 400, "bad_request"),
    "a negative chunk": (post(b"-5\r\nhello\r\n", "Transfer-Encoding: chunked\r\n"), 400, "bad_request"),
    "another transfer coding": (chunked("gzip, chunked"), 400, "bad_request"),
    "another transfer coding on a line of its own": (
        chunked("gzip\r\nTransfer-Encoding: chunked"),
        400,
        "bad_request",
    ),
    "no host": (request_of(GOOD).replace(b"Host: test\r\n", b""), 400, "bad_request"),
    "two hosts": (request_of(GOOD, headers="Host: other\r\n"), 400, "bad_request"),
    "a NUL in a header": (post(b"{}", "A: \0\r\n"), 400, "bad_request"),
    "lines without returns": (post(b"{}").replace(b"\r\n", b"\n"), 400, "bad_request"),
    "more headers than fit": (post(b"{}", "A: b\r\n" * 20_000), 431, "headers_too_large"),
    "an unknown method": (request_of(GOOD, method="BREW"), 400, "bad_request"),
    "another method": (request_of(GOOD, method="PATCH"), 405, "method_not_allowed"),
    "a deadline that is no number": (request_of(GOOD, headers="X-Request-Timeout-Ms: nan\r\n"), 400, "bad_request"),
}


@pytest.mark.parametrize(("request_bytes", "status", "reason"), OTHERS.values(), ids=OTHERS)
def test_another_mistake_has_its_status_and_its_neighbour_is_answered(server, request_bytes, status, reason):
    bad, good = beside(server, request_bytes)

    assert (bad[0], bad[1]["error"]["reason"]) == (status, reason)
    assert good == RIGHT


@pytest.mark.parametrize(
    "path",
    [
        "/predict/..%2f..%2fetc%2fpasswd",
        "/predict/../../etc/passwd",
        "/predict/%2e%2e",
        "/predict/%00",
        "/predict/puppet%00",
        "/predict/puppet%2f",
        "/predict/puppet/",
        "/predict//puppet",
        "//predict/puppet",
        "/PREDICT/puppet",
        "/predict/Puppet",
        "/predict/pup%20pet",
        "/predict/puppet;v=1",
        "/predict/puppet%0d%0aX-Injected:%201",
        "/predict/%ff%fe",
        "/predict/%%%",
        "/predict/" + "a" * 3_000,
    ],
    ids=lambda path: path[:40],
)
def test_a_path_that_plays_tricks_is_a_404_that_reaches_no_model(server, path):
    ran = len(server.engine.ran_rows)

    (status, answer), good = beside(server, request_of(GOOD, path=path))

    assert status == 404
    assert answer["error"]["reason"] in ("unknown_model", "not_found")
    assert good == RIGHT
    assert len(server.engine.ran_rows) == ran + 1


SHAPES = [[2], [1, 3], [2, 2], [0, 2], [-1, 2], [-1, -2], [1.5, 2], [True, 2], ["1", 2], [1, None], None, [], [[1, 2]]]
SHAPES += [
    [10**6, 10**6],
    [2**31, 2**31],
    [2**32, 2**32],
    [2**62, 2],
    [2**63, 2],
    [2**64, 2],
    [10**400, 2],
    [1] * 50_000,
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: str(shape)[:24])
def test_a_shape_that_lies_is_a_400_and_its_neighbour_is_answered(server, shape):
    tensor = {"name": "x", "shape": shape, "datatype": "FP32", "data": [3, 4]}
    request = post({"inputs": [tensor]}).replace(b"/predict", b"/v2/models/puppet/infer", 1)

    (status, answer), good = beside(server, request)

    assert status == 400
    assert answer["error"]
    assert good == RIGHT


def test_one_poisoned_row_among_32_costs_the_other_31_nothing_ten_times_over():
    async def round_of(server, number):
        server.engine.shut()
        plug = await Exchange(server.port, request_of(GOOD)).send()
        assert await asyncio.to_thread(server.engine.began.wait, LIMIT_S)
        values = [-1 if position == 3 * number else position for position in range(32)]
        asked = [asyncio.create_task(ask(server.port, request_of([[value, 1]]))) for value in values]
        await asyncio.to_thread(until, lambda: server.queued_rows == 32)
        server.engine.open()
        assert await plug.answer() == RIGHT
        await plug.leave()
        return zip(values, await asyncio.gather(*asked), strict=True)

    with PuppetServer(max_batch_size=32) as server:
        for number in range(10):
            for value, (status, answer) in asyncio.run(round_of(server, number)):
                if value == -1:
                    assert (status, answer["error"]["reason"]) == (500, "model_error")
                else:
                    assert (status, answer) == (200, {"predictions": [[2.0 * value, 2.0]]})
