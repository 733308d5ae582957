"""Bad requests on the real server, each with a good one beside it: a clear 4xx for one, an answer for the other."""

import asyncio
import json
import time
from collections import Counter

import httpx2
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from puppet_engine import PuppetEngine
from redserve.server import Settings, create_app

LIMIT_S = 20.0
JSON = {"content-type": "application/json"}
GOOD = {"instances": [[3, 4]]}
RIGHT = {"predictions": [[6.0, 8.0]]}


@pytest.fixture
def engine():
    return PuppetEngine()


@pytest.fixture
def url(serve, engine, registry):
    settings = Settings.load({"max_batch_size": 32, "max_body_mib": 1})
    live = serve(create_app(settings, engines={"puppet": lambda: engine}, registry=registry))
    until(lambda: httpx2.get(f"{live.url}/readyz").status_code == 200)
    return live.url


def until(condition):
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s, "it never happened"
        time.sleep(0.005)


def depth(registry):
    return registry.get_sample_value("inference_batch_queue_depth", {"model": "puppet", "version": "1"})


def body(text):
    return text if isinstance(text, bytes) else json.dumps(text).encode()


MISTAKES = {
    "empty body": (b"", 400),
    "not JSON": (b"instances", 400),
    "cut off": (b'{"instances": [[3, 4', 400),
    "no UTF-8": (b'{"instances": [["\xff"]]}', 400),
    "deep nesting": (b'{"instances": ' + b"[" * 100_000, 400),
    "deep objects": (b'{"a":' * 100_000, 400),
    "a huge number": (b'{"instances": [[1e400, 4]]}', 400),
    "a long number": (b'{"instances": [[' + b"9" * 10_000 + b", 4]]}", 400),
    "too large for float32": ({"instances": [[1e39, 4]]}, 400),
    "NaN": (b'{"instances": [[NaN, 4]]}', 400),
    "Infinity": (b'{"instances": [[3, -Infinity]]}', 400),
    "null": ({"instances": [[None, 4]]}, 400),
    "a string": ({"instances": [["3", 4]]}, 400),
    "a boolean": ({"instances": [[True, 4]]}, 400),
    "ragged": ({"instances": [[3, 4], [3]]}, 400),
    "no rows": ({"instances": []}, 400),
    "empty rows": ({"instances": [[]]}, 400),
    "a row too long": ({"instances": [[3, 4, 5]]}, 400),
    "a dimension too many": ({"instances": [[[3, 4]]]}, 400),
    "an unknown input": ({"inputs": {"z": [[3, 4]]}}, 400),
    "an input too many": ({"inputs": {"x": [[3, 4]], "z": [[3, 4]]}}, 400),
    "unknown field": ({"instances": [[3, 4]], "signature": "x"}, 400),
    "too large": (b" " * (2**20 + 1), 413),
}


@pytest.mark.parametrize(("content", "status"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_refused_and_its_neighbour_is_answered(url, content, status):
    async def both():
        async with httpx2.AsyncClient(timeout=30) as client:
            return await asyncio.gather(
                client.post(f"{url}/predict", content=body(content), headers=JSON),
                client.post(f"{url}/predict", json=GOOD),
            )

    bad, good = asyncio.run(both())

    assert bad.status_code == status
    assert bad.json()["error"]["message"]
    assert good.json() == RIGHT


@pytest.mark.parametrize(
    "name",
    ["..%2f..%2fetc%2fpasswd", "%00", "puppet%00", "%2e%2e", "a" * 3_000, "%ff%fe", "pup%20pet", "puppet%2f"],
)
def test_a_model_name_that_plays_tricks_is_a_404(url, name):
    answer = httpx2.post(f"{url}/predict/{name}", json=GOOD)

    assert answer.status_code == 404
    assert answer.json()["error"]["reason"] in ("unknown_model", "not_found")
    assert httpx2.post(f"{url}/predict", json=GOOD).json() == RIGHT


def test_one_poisoned_row_among_32_costs_the_other_31_nothing_ten_times_over(url, engine, registry):
    async def round_of(number):
        engine.shut()
        async with httpx2.AsyncClient(limits=httpx2.Limits(max_connections=40), timeout=30) as client:
            plug = asyncio.create_task(client.post(f"{url}/predict", json=GOOD))
            assert await asyncio.to_thread(engine.began.wait, 20)
            values = [-1 if position == 3 * number else position for position in range(32)]
            asked = [
                asyncio.create_task(client.post(f"{url}/predict", json={"instances": [[value, 1]]})) for value in values
            ]
            await asyncio.to_thread(until, lambda: depth(registry) == 32)
            engine.open()
            answers = await asyncio.gather(*asked)
            await plug
        return values, answers

    for number in range(10):
        values, answers = asyncio.run(round_of(number))
        for value, answer in zip(values, answers, strict=True):
            if value == -1:
                assert answer.status_code == 500
                assert answer.json()["error"]["reason"] == "model_error"
            else:
                assert answer.json() == {"predictions": [[2.0 * value, 2.0]]}


def test_what_clients_saw_is_what_is_counted(url, engine, registry):
    """Mixed outcomes, thousands of them: the counters equal the clients' own tallies exactly."""
    random = np.random.default_rng(0)
    kinds = random.choice(["ok", "client_error", "error"], 3_000, p=[0.7, 0.2, 0.1])
    rows = {"ok": [[3, 4]], "client_error": [[3]], "error": [[-1, 4]]}
    seen: Counter[int] = Counter()

    async def client(share):
        async with httpx2.AsyncClient(timeout=60) as session:
            for kind in share:
                answer = await session.post(f"{url}/predict", json={"instances": rows[kind]})
                seen[answer.status_code] += 1

    async def everybody():
        await asyncio.gather(*(client(kinds[start::16]) for start in range(16)))

    asyncio.run(everybody())

    tally = Counter(kinds.tolist())
    assert seen[400] == tally["client_error"]
    assert seen[500] >= tally["error"]  # beyond `max_reruns` a batch full of bad rows takes good ones along
    assert counted(registry) == seen
    assert registry.get_sample_value("inference_requests_in_flight") == 0
    assert registry.get_sample_value("inference_requests_received_total", {"method": "POST"}) == 3_000


def counted(registry: CollectorRegistry) -> Counter[int]:
    samples = [sample for family in registry.collect() for sample in family.samples]
    counts: Counter[int] = Counter()
    for sample in samples:
        if sample.name == "inference_requests_total" and sample.labels["method"] == "POST":
            counts[int(sample.labels["code"])] += int(sample.value)
    return counts
