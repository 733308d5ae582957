"""Clients that hang up on the real server: their rows go, their neighbours stay, and the counters say so."""

import asyncio
import gc
import json
import socket

import numpy as np
import pytest
from puppet_server import LIMIT_S, ROUTE, Exchange, PuppetServer, request_of, until

from redserve.server.call import Call

BATCH_ROWS = 16
PLUG = 400


@pytest.fixture
def server():
    with PuppetServer(max_batch_size=4) as server:
        server.engine.shut()
        yield server


@pytest.fixture
def engine(server):
    return server.engine


def ask(server, *values):
    """A connection that has sent rows and waits for their answer."""
    client = socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S)
    client.sendall(request_of([[value, 0] for value in values], headers="Connection: close\r\n"))
    return client


def answer_of(client):
    answer = b""
    with client:
        while chunk := client.recv(65_536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def test_one_that_leaves_while_it_is_queued_takes_its_rows_along(server, engine):
    running = ask(server, 1)
    assert engine.began.wait(LIMIT_S)
    leaving, staying = ask(server, 2, 3), ask(server, 4)
    until(lambda: server.queued_rows == 3)

    leaving.close()
    until(lambda: server.queued_rows == 1)
    engine.open()

    assert answer_of(running) == (200, {"predictions": [[2.0, 0.0]]})
    assert answer_of(staying) == (200, {"predictions": [[8.0, 0.0]]})
    until(lambda: server.cancelled == 1)
    assert sum(engine.ran_rows) == 2
    assert server.in_flight == 0


def test_one_that_leaves_while_its_batch_runs_does_not_disturb_it(server, engine):
    plug = ask(server, 0)
    assert engine.began.wait(LIMIT_S)
    leaving, staying = ask(server, 1), ask(server, 2)
    until(lambda: server.queued_rows == 2)
    engine.let_one_run()
    assert engine.began.wait(LIMIT_S)

    leaving.close()
    until(lambda: server.cancelled == 1)
    engine.open()

    assert answer_of(plug)[0] == 200
    assert answer_of(staying) == (200, {"predictions": [[4.0, 0.0]]})
    assert engine.ran_rows == [1, 2]
    assert server.in_flight == 0


def test_one_that_leaves_before_its_body_is_complete_is_counted_and_never_queued(server, engine):
    client = socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S)
    client.sendall(b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\n{")
    until(lambda: server.in_flight == 1)

    client.close()

    until(lambda: server.in_flight == 0)
    assert server.value("requests_total", **ROUTE, code="499", outcome="cancelled") == 1
    assert engine.ran_rows == []


def test_one_that_leaves_takes_its_body_along_before_the_garbage_collector_comes(server, engine):
    gc.collect()
    gc.disable()
    try:
        running = ask(server, 1)
        assert engine.began.wait(LIMIT_S)
        with ask(server, 2):
            until(lambda: server.queued_rows == 1)
        until(lambda: server.cancelled == 1)
        engine.open()
        answer_of(running)

        until(lambda: not any(isinstance(each, Call) for each in gc.get_objects()))
    finally:
        gc.enable()


def test_one_that_leaves_behind_pipelined_requests_leaves_no_trace(server, engine, caplog):
    engine.open()
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S) as client:
            client.sendall(request_of([[1, 0]]) * 3)
            client.shutdown(socket.SHUT_WR)

    until(lambda: server.in_flight == 0)

    assert server.counts().reasons["aborted"] == 0
    assert "Exception in ASGI application" not in caplog.text


def test_of_4000_clients_every_second_leaves_and_costs_at_most_the_batch_that_runs():
    """Ten times 400 wait behind a shut gate; 100 of them leave, and 100 more once the next batch has begun."""
    random = np.random.default_rng(0)
    ran: list[int] = []

    def double(rows):
        ran.extend(rows[:, 0].astype(int).tolist())
        return 2 * rows

    with PuppetServer(change=double, max_batch_size=BATCH_ROWS) as server:
        for number in range(10):
            ran.clear()
            order = random.permutation(400).tolist()
            staying = {PLUG, *order[200:]}
            answers = asyncio.run(wait_and_leave(server, order[:100], order[100:200], order[200:]))

            assert server.cancelled == 200 * (number + 1)
            assert answers == {value: (200, {"predictions": [[2.0 * value, 0.0]]}) for value in staying}
            assert len(ran) == len(set(ran)), "a row ran twice"
            assert staying <= set(ran)
            assert set(ran) - staying <= set(order[100:200]), "one ran for a client that had left before it began"
            assert len(ran) - len(staying) <= BATCH_ROWS
            assert server.queued_rows == server.in_flight == 0

        assert server.counts().codes == {200: 10 * 201, 499: 10 * 200}
        assert server.value("requests_received_total", method="POST") == 10 * 401


async def wait_and_leave(server, early, late, staying):
    """The answers of those who stay, by what they asked for."""
    gone = server.cancelled
    server.engine.shut()
    exchanges = {value: Exchange(server.port, request_of([[value, 0]])) for value in (PLUG, *early, *late, *staying)}
    await exchanges[PLUG].send()
    assert await asyncio.to_thread(server.engine.began.wait, LIMIT_S)
    await asyncio.gather(*(exchanges[value].send() for value in (*early, *late, *staying)))
    await asyncio.to_thread(until, lambda: server.queued_rows == 400)

    await asyncio.gather(*(exchanges[value].leave() for value in early))
    await asyncio.to_thread(until, lambda: server.cancelled == gone + 100)
    assert server.queued_rows == 300
    server.engine.let_one_run()
    assert await asyncio.to_thread(server.engine.began.wait, LIMIT_S)
    await asyncio.gather(*(exchanges[value].leave() for value in late))
    await asyncio.to_thread(until, lambda: server.cancelled == gone + 200)
    server.engine.open()

    answers = {value: await exchanges[value].answer() for value in (PLUG, *staying)}
    await asyncio.gather(*(exchanges[value].leave() for value in (PLUG, *staying)))
    return answers
