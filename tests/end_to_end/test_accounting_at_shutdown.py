"""Who is there at shutdown is answered and counted; who comes later is refused a connection, and is in no number."""

import asyncio
import contextlib
import signal
import socket
import threading

import pytest
from puppet_server import LIMIT_S, Exchange, ask, codes_in, reasons_in, request_of, tally, until

from puppet_engine import PuppetEngine
from redserve.server import Settings, create_app
from redserve.server.runner import Server

GOOD = [[3, 4]]


class Stoppable(Server):
    """The real server in a thread, where no signal arrives; `handle_exit` is what a signal calls."""

    def capture_signals(self):
        return contextlib.nullcontext()


@pytest.fixture
def stoppable(registry):
    """`stoppable(engine, grace_s)`: a server that is up, and its thread."""
    running: list[tuple[Stoppable, threading.Thread]] = []

    def start(engine, grace_s):
        options = Settings.load({"port": 0, "grace_s": grace_s, "max_batch_size": 4})
        app = create_app(options, engines={"puppet": lambda: engine}, registry=registry)
        server = Stoppable(app, options)
        thread = threading.Thread(target=server.run, daemon=True)
        running.append((server, thread))
        thread.start()
        until(lambda: server.started and app.state.redserve.loaded.is_set())
        return server, thread

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(LIMIT_S)


@pytest.mark.parametrize(("grace_s", "status"), [(30, 200), (0, 503)], ids=["enough grace", "no grace"])
def test_who_is_there_at_shutdown_is_answered_and_counted_and_who_comes_later_is_neither(
    stoppable, registry, grace_s, status
):
    engine = PuppetEngine()
    server, thread = stoppable(engine, grace_s)
    engine.shut()

    async def clients():
        port = server.address[1]
        mistakes = [await ask(port, request_of([])), await ask(port, request_of(GOOD, path="/predict/nobody"))]
        plug = await Exchange(port, request_of(GOOD)).send()
        assert await asyncio.to_thread(engine.began.wait, LIMIT_S)
        waiting = [plug, *[await Exchange(port, request_of(GOOD)).send() for _ in range(20)]]
        await asyncio.to_thread(until, lambda: registry.get_sample_value("inference_requests_in_flight") == 21)

        server.handle_exit(signal.SIGTERM, None)
        if grace_s:
            await asyncio.to_thread(until, lambda: is_refused(port))
            engine.open()
        answers = [await exchange.answer() for exchange in waiting]
        for exchange in waiting:
            await exchange.leave()
        await asyncio.to_thread(thread.join, LIMIT_S)
        assert is_refused(port)
        return answers, mistakes

    answers, mistakes = asyncio.run(clients())

    assert [answer[0] for answer in answers] == [status] * 21
    assert (codes_in(registry), reasons_in(registry)) == tally([*answers, *mistakes])
    assert registry.get_sample_value("inference_requests_received_total", {"method": "POST"}) == 23
    assert registry.get_sample_value("inference_requests_in_flight") == 0
    assert server.exit_status == (0 if grace_s else 1)


def is_refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S).close()
    except ConnectionRefusedError:
        return True
    return False
