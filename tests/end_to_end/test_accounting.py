"""What clients saw is what is counted, to the last request: mixed outcomes over HTTP, each forced by the gate.

    a plug holds the engine ─> mistakes and early deadlines are answered ─> others queue up ─> late ones are refused
    ─> the queue is filled ─> what comes now is turned away ─> some leave ─> the gate opens: right answers, and poison

Who leaves does so while the gate holds what they wait for: both sides must say cancelled.
"""

import asyncio
import contextlib
import signal
import socket
import threading
import time
from collections import Counter

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from puppet_server import LIMIT_S, Exchange, PuppetServer, ask, codes_in, reasons_in, request_of, until

from puppet_engine import PuppetEngine
from redserve.server import Settings, create_app
from redserve.server.runner import Server

QUEUE_ROWS = 12
GOOD = [[3, 4]]
POISON = [[-1, 4]]
SOON_S = 0.02
SOON = f"X-Request-Timeout-Ms: {1000 * SOON_S:g}\r\n"

AT_ONCE = {  # answered whatever the engine does
    "a row too long": request_of([[1, 2, 3]]),
    "no row": request_of([]),
    "an unknown model": request_of(GOOD, path="/predict/nobody"),
    "another path": request_of(GOOD, path="/nothing"),
    "another method": request_of(GOOD, method="PUT"),
    "another encoding": request_of(GOOD, headers="Content-Encoding: gzip\r\n"),
    "a wrong deadline": request_of(GOOD, headers="X-Request-Timeout-Ms: -1\r\n"),
    "more rows than may wait": request_of(GOOD * (QUEUE_ROWS + 1)),
    "too many bytes": b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Length: 99999999\r\n\r\n",
    "an early deadline": request_of(GOOD, headers=SOON),
}
QUEUED = {
    "right": request_of(GOOD),
    "right by name": request_of(GOOD, path="/predict/puppet"),
    "poison": request_of(POISON),
}
LEAVING = {"leaves": request_of(GOOD), "leaves with poison": request_of(POISON)}


@pytest.fixture(scope="module")
def server():
    with PuppetServer(max_batch_size=4, max_queue_rows=QUEUE_ROWS, max_body_mib=1) as server:
        yield server


@given(
    at_once=st.lists(st.sampled_from(sorted(AT_ONCE)), max_size=12),
    queued=st.lists(st.sampled_from(sorted(QUEUED)), max_size=6),  # three batches of poison would have it probed
    leaving=st.lists(st.sampled_from(sorted(LEAVING)), max_size=5),
    late=st.integers(0, 3),
    turned_away=st.integers(0, 4),
    is_next_begun=st.booleans(),
)
@settings(max_examples=25, derandomize=True)
def test_client_side_counts_equal_the_counters(server, **plan):
    assert_counts_agree(server, **plan)


def test_client_side_counts_equal_the_counters_when_everything_happens(server):
    seen = assert_counts_agree(
        server,
        at_once=[*AT_ONCE, *AT_ONCE],
        queued=[*QUEUED, *QUEUED],
        leaving=[*LEAVING, *LEAVING],
        late=3,
        turned_away=3,
        is_next_begun=True,
    )

    ends = "bad_request unknown_model not_found method_not_allowed unsupported_media_type too_large deadline_expired "
    ends += "predicted_late queue_full client_disconnected model_error"
    assert set(seen) == set(ends.split())


def assert_counts_agree(server, **plan):
    """Returns the reasons that were seen."""
    codes, reasons = server.codes(), server.reasons()
    seen_codes, seen_reasons = asyncio.run(play(server, **plan))

    assert server.codes() - codes == seen_codes
    assert server.reasons() - reasons == seen_reasons
    assert server.in_flight == server.queued_rows == 0
    return seen_reasons


async def play(server, *, at_once, queued, leaving, late, turned_away, is_next_begun):
    """Codes and reasons as the clients saw them."""
    port = server.port
    gone = server.cancelled
    answers: list[tuple[int, object]] = []
    async with scraped(server.url):
        server.engine.shut()
        plug = await Exchange(port, request_of(GOOD)).send()
        assert await asyncio.to_thread(server.engine.began.wait, LIMIT_S)
        began_s = time.monotonic()
        answers += await asyncio.gather(*(ask(port, AT_ONCE[kind]) for kind in at_once))

        waiting = [await Exchange(port, QUEUED[kind]).send() for kind in queued]
        leavers = [await Exchange(port, LEAVING[kind]).send() for kind in leaving]
        await asyncio.to_thread(until, lambda: server.queued_rows == len(queued) + len(leaving))
        if late and server.queued_rows:  # an empty queue takes anybody
            await asyncio.to_thread(until, lambda: time.monotonic() > began_s + 3 * SOON_S)
            answers += await asyncio.gather(*(ask(port, request_of(GOOD, headers=SOON)) for _ in range(late)))
        waiting.append(await Exchange(port, request_of(GOOD * (QUEUE_ROWS - server.queued_rows))).send())
        await asyncio.to_thread(until, lambda: server.queued_rows == QUEUE_ROWS)
        answers += await asyncio.gather(*(ask(port, request_of(GOOD)) for _ in range(turned_away)))

        if is_next_begun:
            server.engine.let_one_run()
            assert await asyncio.to_thread(server.engine.began.wait, LIMIT_S)
        await asyncio.gather(*(leaver.leave() for leaver in leavers))
        await asyncio.to_thread(until, lambda: server.cancelled == gone + len(leavers))
        server.engine.open()
        for exchange in (plug, *waiting):
            answers.append(await exchange.answer())
            await exchange.leave()
    return tally(answers, left=len(leavers))


def tally(answers, *, left=0):
    """How often each status, and each reason not to be ok, was seen."""
    codes = Counter(status for status, _ in answers) + Counter({499: left})
    reasons = Counter(body["error"]["reason"] for status, body in answers if status >= 400)
    return codes, reasons + Counter({"client_disconnected": left})


@contextlib.asynccontextmanager
async def scraped(url):
    """Meanwhile scrape again and again: whatever has arrived has ended or is in flight, in each single scrape."""
    scrapes: list[tuple[float, float]] = []

    async def scrape():
        async with httpx2.AsyncClient(timeout=LIMIT_S) as client:
            while True:
                text = (await client.get(f"{url}/metrics")).text
                sums: Counter[str] = Counter()
                for line in text.splitlines():
                    name = line.partition("{")[0].partition(" ")[0]
                    if name.startswith("inference_requests_"):
                        sums[name] += float(line.rpartition(" ")[2])
                ended, in_flight = sums["inference_requests_total"], sums["inference_requests_in_flight"]
                scrapes.append((sums["inference_requests_received_total"], ended + in_flight))

    task = asyncio.create_task(scrape())
    try:
        yield
        seen = len(scrapes)
        while len(scrapes) == seen:  # one more, after the end
            assert not task.done(), task.exception()
            await asyncio.sleep(0.001)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert scrapes
    assert [received for received, _ in scrapes] == [accounted for _, accounted in scrapes]


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
