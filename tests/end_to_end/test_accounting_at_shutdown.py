"""Who is there at shutdown is answered and counted; who comes later is refused a connection, and is in no number."""

import asyncio
import contextlib
import signal
import socket
import threading

import pytest
from accounting_plan import AT_ONCE, LEAVING, PLAN, QUEUE_ROWS, QUEUED, assert_counts_agree
from hypothesis import Phase, given, settings
from prometheus_client import CollectorRegistry
from puppet_server import LIMIT_S, Exchange, PuppetServer, ask, request_of, tally, until

from puppet_engine import PuppetEngine
from redserve.server import Settings, create_app
from redserve.server.runner import Server

GOOD = [[3, 4]]


class Uncaught(Server):
    """The real server in a thread, where no signal arrives; `handle_exit` is what a signal calls."""

    def capture_signals(self):
        return contextlib.nullcontext()


class StoppableServer(PuppetServer):
    """A puppet server that can be told to stop while somebody waits for it."""

    def __init__(self, **options):
        self.engine = PuppetEngine()
        self.registry = CollectorRegistry()
        settings = Settings.load({"port": 0, "max_batch_size": 4, **options})
        self._app = create_app(settings, engines={"puppet": lambda: self.engine}, registry=self.registry)
        self._server = Uncaught(self._app, settings)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self):
        self._thread.start()
        until(lambda: self._server.started and self._app.state.redserve.loaded.is_set())
        _, self.port = self._server.address
        self.engine.ran_rows.clear()
        return self

    def __exit__(self, *exception):
        self.engine.open()
        self._server.should_exit = True
        self.wait()

    def signal(self):
        """As SIGTERM would."""
        self._server.handle_exit(signal.SIGTERM, None)

    def stop_listening(self):
        """The same, and wait until nobody new is taken."""
        self.signal()
        until(lambda: is_refused(self.port))

    def wait(self):
        """Its exit status, once it has ended."""
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()
        return self._server.exit_status


@given(**PLAN)
@settings(max_examples=10, derandomize=True, phases=[Phase.generate])
def test_client_side_counts_equal_the_counters_when_the_server_is_stopped_amid_all(**plan):
    with StoppableServer(max_queue_rows=QUEUE_ROWS, max_body_mib=1) as server:
        assert_counts_agree(server, stop=server.stop_listening, **plan)
        assert server.wait() == 0


EVERYTHING = {
    "at_once": [*AT_ONCE],
    "queued": [*QUEUED],
    "leaving": [*LEAVING],
    "late": 2,
    "turned_away": 2,
    "is_next_begun": True,
}


def test_client_side_counts_equal_the_counters_when_everything_happens_and_there_is_no_grace():
    with StoppableServer(max_queue_rows=QUEUE_ROWS, max_body_mib=1, grace_s=0) as server:
        seen = assert_counts_agree(server, stop=server.signal, opens_gate=False, **EVERYTHING)
        assert server.wait() == 1

    assert seen["shutting_down"] > 0


@pytest.mark.parametrize(("grace_s", "status"), [(30, 200), (0, 503)], ids=["enough grace", "no grace"])
def test_who_is_there_at_shutdown_is_answered_and_counted_and_who_comes_later_is_neither(grace_s, status):
    async def clients(server):
        mistakes = [
            await ask(server.port, request_of([])),
            await ask(server.port, request_of(GOOD, path="/predict/no")),
        ]
        server.engine.shut()
        plug = await Exchange(server.port, request_of(GOOD)).send()
        assert await asyncio.to_thread(server.engine.began.wait, LIMIT_S)
        waiting = [plug, *[await Exchange(server.port, request_of(GOOD)).send() for _ in range(20)]]
        await asyncio.to_thread(until, lambda: server.in_flight == 21)

        await asyncio.to_thread(server.stop_listening if grace_s else server.signal)
        if grace_s:
            server.engine.open()
        answers = [await exchange.answer() for exchange in waiting]
        for exchange in waiting:
            await exchange.leave()
        assert await asyncio.to_thread(server.wait) == (0 if grace_s else 1)
        assert is_refused(server.port)
        return answers, mistakes

    with StoppableServer(grace_s=grace_s) as server:
        answers, mistakes = asyncio.run(clients(server))

    assert [answer[0] for answer in answers] == [status] * 21
    assert server.counts() == tally([*answers, *mistakes])
    assert server.value("requests_received_total", method="POST") == 23
    assert server.in_flight == 0


def test_a_body_that_has_not_come_when_there_is_no_more_grace_is_counted_as_turned_away():
    async def client(server):
        begun = await Exchange(server.port, request_of(GOOD)[:-1]).send()
        await asyncio.to_thread(until, lambda: server.in_flight == 1)
        server.signal()
        answer = await begun.answer()
        await begun.leave()
        return answer

    with StoppableServer(grace_s=0) as server:
        answer = asyncio.run(client(server))
        assert server.wait() == 1

    assert answer[0] == 503
    assert server.counts() == tally([answer])
    assert server.counts().reasons == {"shutting_down": 1}


def is_refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S).close()
    except ConnectionRefusedError:
        return True
    return False
