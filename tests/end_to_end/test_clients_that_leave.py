"""Clients that hang up on the real server: their rows go, their neighbours stay, and the counters say so."""

import json
import socket
import time
from functools import partial

import httpx2
import pytest

from puppet_engine import PuppetEngine
from redserve.server import Settings, create_app
from redserve.server.http_protocol import HttpLimits, HttpProtocol

LIMIT_S = 20.0


@pytest.fixture
def engine():
    return PuppetEngine()


@pytest.fixture
def server(serve, engine, registry):
    app = create_app(Settings.load({"max_batch_size": 4}), engines={"puppet": lambda: engine}, registry=registry)
    live = serve(app, http=partial(HttpProtocol, limits=HttpLimits()))
    until(lambda: httpx2.get(f"{live.url}/readyz").status_code == 200)
    engine.shut()
    engine.ran_rows.clear()
    return live


def until(condition):
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s, "it never happened"
        time.sleep(0.01)


def ask(server, *values):
    """A connection that has sent rows and waits for their answer."""
    client = socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S)
    body = json.dumps({"instances": [[value, 0] for value in values]}).encode()
    head = "POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nConnection: close\r\n"
    client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return client


def answer_of(client):
    answer = b""
    with client:
        while chunk := client.recv(65_536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def value_of(registry, name, **labels):
    return registry.get_sample_value(f"inference_{name}", labels) or 0


def depth(registry):
    return value_of(registry, "batch_queue_depth", model="puppet", version="1")


def left(registry):
    labels = {"route": "/predict", "method": "POST", "model": "puppet"}
    return value_of(registry, "requests_total", code="499", outcome="cancelled", **labels)


def test_one_that_leaves_while_it_is_queued_takes_its_rows_along(server, engine, registry):
    running = ask(server, 1)
    assert engine.began.wait(LIMIT_S)
    leaving, staying = ask(server, 2, 3), ask(server, 4)
    until(lambda: depth(registry) == 3)

    leaving.close()
    until(lambda: depth(registry) == 1)
    engine.open()

    assert answer_of(running) == (200, {"predictions": [[2.0, 0.0]]})
    assert answer_of(staying) == (200, {"predictions": [[8.0, 0.0]]})
    until(lambda: left(registry) == 1)
    assert sum(engine.ran_rows) == 2
    assert value_of(registry, "requests_in_flight") == 0


def test_one_that_leaves_while_its_batch_runs_does_not_disturb_it(server, engine, registry):
    plug = ask(server, 0)
    assert engine.began.wait(LIMIT_S)
    leaving, staying = ask(server, 1), ask(server, 2)
    until(lambda: depth(registry) == 2)
    engine.let_one_run()
    assert engine.began.wait(LIMIT_S)

    leaving.close()
    until(lambda: left(registry) == 1)
    engine.open()

    assert answer_of(plug)[0] == 200
    assert answer_of(staying) == (200, {"predictions": [[4.0, 0.0]]})
    assert engine.ran_rows == [1, 2]
    assert value_of(registry, "requests_in_flight") == 0


def test_one_that_leaves_before_its_body_is_complete_is_counted_and_never_queued(server, engine, registry):
    client = socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S)
    client.sendall(b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\n{")
    until(lambda: value_of(registry, "requests_in_flight") == 1)

    client.close()

    until(lambda: value_of(registry, "requests_in_flight") == 0)
    labels = {"route": "/predict", "method": "POST", "model": "puppet", "code": "499", "outcome": "cancelled"}
    assert value_of(registry, "requests_total", **labels) == 1
    assert engine.ran_rows == []


def test_one_that_leaves_behind_pipelined_requests_leaves_no_trace(server, engine, registry, caplog):
    engine.open()
    body = b'{"instances": [[1, 0]]}'
    request = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
    request += b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S) as client:
            client.sendall(request * 3)
            client.shutdown(socket.SHUT_WR)

    until(lambda: value_of(registry, "requests_in_flight") == 0)

    assert value_of(registry, "errors_total", route="/predict", model="puppet", reason="aborted") == 0
    assert "Exception in ASGI application" not in caplog.text
