"""Clients that ask and do not read: the answer that waits for them is given up, and no shutdown waits for them."""

import json
import os
import socket
import time

import pytest
from served import Served

LIMIT_S = 30.0
ECHOED_BYTES = 8_000_000
"""More than the kernel keeps for a client that does not read."""


@pytest.fixture
def served():
    with Served("--write-timeout-s", "1") as served:
        yield served


def ask_for_much(served, *, headers=""):
    """A client that has asked for an answer of `ECHOED_BYTES`, and has read nothing."""
    tensor = {"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [0] * 64}
    body = json.dumps({"id": "x" * ECHOED_BYTES, "inputs": [tensor]})
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.settimeout(LIMIT_S)
    client.connect(("127.0.0.1", int(served.url.rpartition(":")[2])))
    head = f"POST /v2/models/digits/infer HTTP/1.1\r\nHost: test\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    client.sendall(f"{head}{body}".encode())
    assert client.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 200"
    return client


def open_files(served):
    return len(os.listdir(f"/proc/{served.process.pid}/fd"))


def until(condition):
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s, "it never happened"
        time.sleep(0.05)


def received_bytes(client):
    received = 0
    try:
        while chunk := client.recv(1_000_000):
            received += len(chunk)
    except ConnectionResetError:
        pass
    return received


@pytest.mark.parametrize("headers", ["", "Connection: close\r\n"], ids=["kept alive", "closing"])
def test_a_client_that_does_not_read_its_answer_is_cut_off(served, headers):
    before = open_files(served)
    with ask_for_much(served, headers=headers) as client:
        assert open_files(served) > before
        until(lambda: open_files(served) == before)
        assert received_bytes(client) < ECHOED_BYTES


def test_a_client_that_does_not_read_does_not_keep_the_server_from_its_end(served):
    with ask_for_much(served):
        served.signal()
        assert served.wait() == 0
    assert "grace time is over" not in served.errors


def test_nor_does_it_where_the_grace_time_ends_first():
    with Served("--write-timeout-s", "600", "--grace-s", "1") as served, ask_for_much(served):
        served.signal()
        assert served.wait() == 0
    assert "Traceback" not in served.errors
    assert "graceful shutdown exceeded" not in served.errors
