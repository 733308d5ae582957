"""More than anybody should send: cut off in the end, and never held in memory, which is read from `/proc`."""

import asyncio
import gzip
import re
import socket
import time
import zlib

import pytest
from puppet_server import LIMIT_S, ask
from served import Served

CHUNKED = (
    b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
)
UNREAD = CHUNKED.replace(b"POST /predict", b"GET /livez")
FLOODS = {
    "a body": (CHUNKED, b"10000\r\n" + b" " * 65_536 + b"\r\n"),
    "trailers": (CHUNKED + b"0\r\n", b"A: b\r\n" * 10_000),
    "one trailer": (CHUNKED + b"0\r\nA: ", b"b" * 65_536),
    "an extension of a chunk": (CHUNKED + b"5;", b"b" * 65_536),
    "headers": (b"GET /livez HTTP/1.1\r\n", b"A: b\r\n" * 10_000),
    "a body that nobody reads": (UNREAD, b"10000\r\n" + b" " * 65_536 + b"\r\n"),
    "trailers of a body that nobody reads": (UNREAD + b"0\r\n", b"A: b\r\n" * 10_000),
    "requests, and no answer is read": (b"", b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n" * 2_000),
    "empty lines": (b"", b"\r\n" * 30_000),
}


@pytest.fixture(scope="module")
def process():
    with Served("--max-body-mib", "1", "--header-timeout-s", "1", "--body-timeout-s", "1") as process:
        yield process


@pytest.mark.parametrize(("begin", "piece"), FLOODS.values(), ids=FLOODS)
def test_a_flood_is_cut_off_and_never_stored(process, begin, piece):
    before = peak_mib(process)
    with socket.create_connection(("127.0.0.1", port_of(process)), timeout=LIMIT_S) as client:
        client.sendall(begin)
        assert is_cut_off(client, piece)

    assert peak_mib(process) - before < 40
    assert label_of_the_example(process) == 7


def is_cut_off(client, piece):
    deadline_s = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline_s:
        try:
            client.sendall(piece)
        except ConnectionError:
            return True
    return False


def test_the_shortest_headers_on_many_connections_cost_no_more_than_they_are(process):
    before = peak_mib(process)
    clients = [socket.create_connection(("127.0.0.1", port_of(process)), timeout=LIMIT_S) for _ in range(200)]
    try:
        for client in clients:
            client.sendall(b"GET /livez HTTP/1.1\r\n" + b"A:b\r\n" * 12_900)
        assert label_of_the_example(process) == 7  # behind all of them
        assert {client.recv(12) for client in clients} == {b"HTTP/1.1 431"}
    finally:
        for client in clients:
            client.close()

    assert peak_mib(process) - before < 40  # of 12.9 MB sent; it was 300


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_never_unpacked(process, encoding):
    packed = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding](b" " * 300 * 2**20)
    before = peak_mib(process)

    status, answer = asyncio.run(ask(port_of(process), post(packed, f"Content-Encoding: {encoding}\r\n")))

    assert (status, answer["error"]["reason"]) == (413, "too_large")
    assert peak_mib(process) - before < 40


STRUCTURE = {
    "empty lists": ("/predict", b'{"instances":[', b"[],", b"[]]}"),
    "one endless row": ("/predict", b'{"instances":[[', b"1,", b"1]]}"),
    "empty rows by name": ("/predict", b'{"inputs":{"pixels":[', b"[],", b"[]]}}"),
    "parameters": ("/v2/models/digits/infer", b'{"inputs":[],"parameters":{"a":[', b"[],", b"[]]}}"),
    "empty lists for data": (
        "/v2/models/digits/infer",
        b'{"inputs":[{"name":"pixels","shape":[87000,64],"datatype":"FP32","data":[',
        b"[],",
        b"[]]}]}",
    ),
    "a long shape": ("/v2/models/digits/infer", b'{"inputs":[{"name":"pixels","shape":[', b"1,", b"1]}]}"),
}


@pytest.fixture(scope="module", params=["1024", "10000000"], ids="max_queue_rows={}".format)
def wide_process(request):
    with Served("--max-queue-rows", request.param) as process:
        yield process


@pytest.mark.parametrize("pack", [None, gzip.compress, zlib.compress], ids=["plain", "gzip", "deflate"])
@pytest.mark.parametrize(("path", "begin", "piece", "end"), STRUCTURE.values(), ids=STRUCTURE)
def test_a_body_that_is_all_structure_is_refused_before_it_fills_the_memory(
    wide_process, pack, path, begin, piece, end
):
    body = begin + piece * ((16 * 2**20 - 200) // len(piece)) + end
    headers = "" if pack is None else f"Content-Encoding: {pack.__module__.replace('zlib', 'deflate')}\r\n"
    request = post(body if pack is None else pack(body), headers).replace(b"/predict", path.encode(), 1)
    forget_peak(wide_process)
    before = peak_mib(wide_process)

    status, answer = asyncio.run(ask(port_of(wide_process), request))

    assert status in (400, 413)
    assert answer["error"]
    assert peak_mib(wide_process) - before < 120  # what is sent, what is unpacked, and no lists
    assert label_of_the_example(wide_process) == 7


def test_encodings_of_encodings_are_not_undone_in_one_header_or_in_two(process):
    twice = gzip.compress(gzip.compress(b'{"instances": []}'))

    for headers in ("Content-Encoding: gzip, gzip\r\n", "Content-Encoding: gzip\r\n" * 2):
        status, answer = asyncio.run(ask(port_of(process), post(twice, headers)))

        assert (status, answer["error"]["reason"]) == (415, "unsupported_media_type")


def port_of(process):
    return int(process.url.rpartition(":")[2])


def peak_mib(process):
    """The most memory that the server has held so far."""
    with open(f"/proc/{process.process.pid}/status") as status:
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read())[1]) / 1024


def forget_peak(process):
    with open(f"/proc/{process.process.pid}/clear_refs", "w") as refs:
        refs.write("5")


def label_of_the_example(process):
    body = process.curl.partition("-d '")[2].rstrip("'").encode()
    status, answer = asyncio.run(ask(port_of(process), post(body)))
    assert status == 200
    return answer["predictions"][0]["label"]


def post(body, headers=""):
    head = f"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
