"""Whatever comes in, `redserve serve` answers it below 500 or closes the connection, soon, and stays as it was.

raw bytes, mutated requests, wild methods, paths, headers, framings ─> 20 connections at once, one good one beside
any JSON, any text ─> one connection after the other; what is accepted is answered right
"""

import asyncio
import json
import os
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from puppet_server import until
from served import Served

from engine.onnx_models import identity

LIMIT_S = 20.0
BODY = b'{"instances": [[1, 2, 3, 4]]}'
HEAD = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
GOOD = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
RIGHT = {"predictions": [[1.0, 2.0, 3.0, 4.0]]}

FUZZ = settings(
    derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example]
)


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    model = identity(tmp_path_factory.mktemp("model"))
    limits = "--header-timeout-s 0.3 --body-timeout-s 0.3 --max-body-mib 1"
    with Served(str(model), *limits.split()) as process:
        exchange(process, [GOOD] * 8)  # what is made once, such as threads, is made now
        before = threads_of(process), descriptors_of(process), rss_mib(process)
        yield process
        until(lambda: descriptors_of(process) <= before[1])
        assert threads_of(process) <= before[0] + 8  # of the pool that decodes large bodies
        assert rss_mib(process) < before[2] + 40
        metrics = asyncio.run(one_after_the_other(port_of(process), [b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n"]))
        assert_all_is_accounted_for(metrics[0][1].decode())
        assert "Traceback" not in process.errors


@st.composite
def mutated(draw):
    """A good request with a few bytes changed, left out, doubled, or put in."""
    data = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 8)))
        data[start:end] = draw(
            st.one_of(st.binary(max_size=8), st.sampled_from(FRAGMENTS), st.just(data[start:end] * 2))
        )
    return bytes(data)


FRAGMENTS = [
    b"\r\nConnection: Upgrade\r\nUpgrade: h2c",
    b"\r\nTransfer-Encoding: chunked",
    b"\0",
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b":",
    b" ",
    b"[",
    b"NaN",
    b"-",
    b"9" * 30,
    b"%00",
    b"%2f",
    b"\xff",
    b"/",
]
TOKENS = st.sampled_from(
    ["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PRI", "M-SEARCH", "BREW"]
)
PATHS = st.one_of(
    st.sampled_from(
        ["/", "*", "/predict", "/predict/identity", "/livez", "/readyz", "/openapi.json", "http://a/predict"]
    ),
    st.sampled_from(["/v2", "/v2/models/identity/infer", "/v2/models/identity", "/invocations", "/docs/assets/x"]),
    st.text(max_size=30).map(lambda text: "/predict/" + text),
    st.text(max_size=30),
)
NAMES = ["Content-Type", "Content-Length", "Transfer-Encoding", "Content-Encoding", "Expect", "Connection", "Upgrade"]
NAMES += [
    "Host",
    "X-Request-Timeout-Ms",
    "Range",
    "Accept-Encoding",
    "Authorization",
    "Inference-Header-Content-Length",
]
VALUES = [
    "application/json",
    "application/octet-stream",
    "application/x-npy",
    "chunked",
    "gzip",
    "100-continue",
    "close",
]
VALUES += ["websocket", "h2c", "Upgrade", "keep-alive", "0", "1", "29", "-1", "1e3", "99999999999999999999", "nan", ""]
HEADERS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.one_of(st.sampled_from(VALUES), st.text(max_size=12))), max_size=6
)
BODIES = st.one_of(st.just(BODY), st.binary(max_size=60), st.just(b"5\r\nhello\r\n0\r\n\r\n"), st.just(b""))


@st.composite
def composed(draw):
    """What has the form of a request."""
    lines = [f"{draw(TOKENS)} {draw(PATHS)} HTTP/{draw(st.sampled_from(['1.1', '1.0', '2', '0.9']))}"]
    lines += [f"{name}: {value}" for name, value in draw(HEADERS)]
    body = draw(BODIES)
    if draw(st.booleans()):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode(errors="surrogatepass") + body


REQUESTS = st.one_of(mutated(), composed(), st.binary(max_size=80))


@given(st.lists(REQUESTS, min_size=20, max_size=20))
@settings(FUZZ, max_examples=20)
def test_any_bytes_are_answered_below_500_or_cut_off(process, requests):
    answers = exchange(process, [*requests, GOOD])

    for request, answer in zip(requests, answers, strict=False):
        statuses = [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]
        assert all(status < 500 for status in statuses) or is_late(answer), (request, answer)
    assert json.loads(answers[-1].partition(b"\r\n\r\n")[2]) == RIGHT


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(width=32) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["x", "instances", "inputs", ""]), inner)
    ),
    max_leaves=12,
)
ROWS = st.lists(st.lists(st.floats(width=32) | st.integers(-(2**70), 2**70) | JSON, min_size=3, max_size=5), max_size=4)
WRAPPED = st.one_of(JSON, st.fixed_dictionaries({"instances": JSON | ROWS}), st.fixed_dictionaries({"inputs": JSON}))
WRAPPED |= st.fixed_dictionaries(
    {"instances": st.lists(st.lists(st.floats(width=32), min_size=4, max_size=4), min_size=1)}
)


@given(st.lists(WRAPPED, min_size=10, max_size=10))
@settings(FUZZ, max_examples=60)
def test_any_json_is_refused_or_answered_right(process, messages):
    requests = [HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in map(encoded, messages)]
    answers = asyncio.run(one_after_the_other(port_of(process), requests))

    for message, (status, answer) in zip(messages, answers, strict=True):
        if status == 200:
            (got,) = json.loads(answer).values()
            assert np.array_equal(np.float32(got), np.float32(rows_in(message))), message
        else:
            assert status in (400, 413), (message, answer)
            assert json.loads(answer)["error"]["reason"]


def encoded(message):
    return json.dumps(message).encode(errors="surrogatepass")


def rows_in(message):
    """The rows that the identity must give back."""
    (rows,) = message.values()
    rows = rows.get("x") if isinstance(rows, dict) else rows
    return [row["x"] if isinstance(row, dict) else row for row in rows]


def is_late(answer):
    """Whether it is a deadline, which the request may have asked for, that cannot be kept."""
    return b'"deadline_expired"' in answer or b'"predicted_late"' in answer


def exchange(process, requests):
    """What comes back for each, on connections of their own, at the same time: up to one answer, or the end."""

    async def one(request):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(process))
        received = b""
        try:
            writer.write(request)
            while not is_answer(received, is_head=request.startswith(b"HEAD ")) and (
                chunk := await reader.read(65_536)
            ):
                received += chunk
        except ConnectionError:
            pass
        finally:
            writer.close()
        return received

    async def all_of_them():
        async with asyncio.timeout(LIMIT_S):
            return await asyncio.gather(*map(one, requests))

    return asyncio.run(all_of_them())


def is_answer(received, *, is_head):
    """Whether the last of it is a whole answer."""
    head, end, body = received.rpartition(b"HTTP/1.")[2].partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    return bool(end) and not head.startswith(b"1 100 ") and (is_head or length is None or len(body) == int(length[1]))


async def one_after_the_other(port, requests):
    """Status and body of each, over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = []
    async with asyncio.timeout(LIMIT_S):
        for request in requests:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(re.search(rb"content-length: (\d+)", head)[1])
            answers.append((int(head.split()[1]), await reader.readexactly(length)))
    writer.close()
    await writer.wait_closed()
    return answers


def assert_all_is_accounted_for(metrics):
    sums = dict.fromkeys(("received_total", "total", "in_flight"), 0.0)
    for name, value in re.findall(r"^inference_requests_(\w+?)(?:\{.*\})? (\S+)$", metrics, re.MULTILINE):
        sums[name] += float(value)
    assert sums["received_total"] == sums["total"] > 500
    assert sums["in_flight"] == 0
    assert 'reason="unhandled_exception"' not in metrics


def port_of(process):
    return int(process.url.rpartition(":")[2])


def descriptors_of(process):
    return len(os.listdir(f"/proc/{process.process.pid}/fd"))


def threads_of(process):
    return len(os.listdir(f"/proc/{process.process.pid}/task"))


def rss_mib(process):
    with open(f"/proc/{process.process.pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
