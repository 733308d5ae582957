"""Clients of all kinds against a gated engine: each end that a request can have, forced and seen from outside.

    a plug holds the engine ─> mistakes and early deadlines are answered ─> others queue up ─> late ones are refused
    ─> the queue is filled ─> what comes now is turned away ─> some leave ─> (the server is told to stop)
    ─> the gate opens: right answers, and poison

Who leaves does so while the gate holds what they wait for: both sides must say cancelled.
"""

import asyncio
import contextlib
import time
from collections import Counter

import httpx2
from hypothesis import strategies as st
from puppet_server import LIMIT_S, Exchange, ask, request_of, tally, until

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
    "another encoding": request_of(GOOD, headers="Content-Encoding: br\r\n"),
    "a wrong deadline": request_of(GOOD, headers="X-Request-Timeout-Ms: -1\r\n"),
    "more rows than may wait": request_of(GOOD * (QUEUE_ROWS + 1)),
    "too many bytes": b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Length: 99999999\r\n\r\n",
    "an early deadline": request_of(GOOD, headers=SOON),
    "no HTTP": b"NONSENSE\r\n\r\n",
    "another method, that nobody knows": request_of(GOOD, method="BREW"),
    "two framings": request_of(GOOD, headers="Transfer-Encoding: chunked\r\n"),
    "too many header bytes": request_of(GOOD, headers=f"A: {'b' * 70_000}\r\n"),
    "too many headers": request_of(GOOD, headers="A: b\r\n" * 300),
}
QUEUED = {
    "right": request_of(GOOD),
    "right by name": request_of(GOOD, path="/predict/puppet"),
    "poison": request_of(POISON),
}
LEAVING = {"leaves": request_of(GOOD), "leaves with poison": request_of(POISON)}

PLAN = {
    "at_once": st.lists(st.sampled_from(sorted(AT_ONCE)), max_size=12),
    "queued": st.lists(st.sampled_from(sorted(QUEUED)), max_size=6),  # three batches of poison would have it probed
    "leaving": st.lists(st.sampled_from(sorted(LEAVING)), max_size=5),
    "late": st.integers(0, 3),
    "turned_away": st.integers(0, 4),
    "is_next_begun": st.booleans(),
}


async def play(server, *, at_once, queued, leaving, late, turned_away, is_next_begun, stop=None, opens_gate=True):
    """What the clients saw. `stop` is called before the gate opens, if it does; from then on nobody can scrape."""
    port = server.port
    gone = server.cancelled
    answers: list[tuple[int, object]] = []
    async with scraped(server.url) if stop is None else contextlib.nullcontext():
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
        if stop is not None:
            await asyncio.to_thread(stop)
        if opens_gate:
            server.engine.open()
        for exchange in (plug, *waiting):
            answers.append(await exchange.answer())
            await exchange.leave()
    return tally(answers, left=len(leavers))


def assert_counts_agree(server, **plan):
    """Returns the reasons that were seen."""
    before = server.counts()
    seen = asyncio.run(play(server, **plan))

    assert server.counts() - before == seen
    assert server.in_flight == server.queued_rows == 0
    return seen.reasons


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
