"""The real server over HTTP with a puppet for an engine: the gate forces what happens, nothing is raced.

async with Exchange(port, request) as exchange:     the request is sent
    status, body = await exchange.answer()          ... or leave without it: the connection is closed
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import httpx2
from live_app import LiveApp
from prometheus_client import CollectorRegistry

from puppet_engine import PuppetEngine
from redserve.engine.tensors import Array
from redserve.server import Settings, create_app
from redserve.server.http_limits import HttpLimits
from redserve.server.http_protocol import HttpProtocol

LIMIT_S = 30.0

ROUTE = {"route": "/predict", "method": "POST", "model": "puppet"}


class PuppetServer:
    """A server of the model `puppet`, from `__enter__` to `__exit__`.

    Args:
        change: What the engine does to rows; doubles them by default.
        settings: The server's.

    Attributes:
        engine: Runs its batches, as the test says.
        registry: Has its metrics, without asking it.
        url: Where it answers.
        port: The same.
    """

    def __init__(self, *, change: Callable[[Array], Array] | None = None, **settings: Any) -> None:
        self.engine = PuppetEngine(change=change)
        self.registry = CollectorRegistry()
        app = create_app(Settings.load(settings), engines={"puppet": lambda: self.engine}, registry=self.registry)
        self._live = LiveApp(app, http=partial(HttpProtocol, limits=HttpLimits(), door=app.state.redserve.fast_door))
        self.url, self.port = self._live.url, self._live.port

    def __enter__(self) -> Self:
        self._live.__enter__()
        until(lambda: httpx2.get(f"{self.url}/readyz").status_code == 200)
        self.engine.ran_rows.clear()
        return self

    def __exit__(self, *exception: object) -> None:
        self.engine.open()
        self._live.__exit__(*exception)

    @property
    def queued_rows(self) -> int:
        """Rows that wait."""
        return int(self.value("batch_queue_depth", model="puppet", version="1"))

    @property
    def in_flight(self) -> int:
        """Requests that have arrived and not ended."""
        return int(self.value("requests_in_flight"))

    @property
    def cancelled(self) -> int:
        """Requests whose clients left."""
        return self.counts().codes[499]

    def value(self, name: str, **labels: str) -> float:
        """One sample; 0 where there is none yet."""
        return self.registry.get_sample_value(f"inference_{name}", labels) or 0.0

    def counts(self) -> "Counts":
        """How requests have ended so far."""
        return Counts(
            codes=_sum(self.registry, "inference_requests_total", lambda labels: int(labels["code"])),
            outcomes=_sum(self.registry, "inference_requests_total", lambda labels: labels["outcome"]),
            reasons=_sum(self.registry, "inference_errors_total", lambda labels: labels["reason"]),
        )


@dataclass(frozen=True)
class Counts:
    """How many requests ended with each status and each outcome, and how many failed for each reason."""

    codes: Counter[int]
    outcomes: Counter[str]
    reasons: Counter[str]

    def __sub__(self, before: "Counts") -> "Counts":
        return Counts(self.codes - before.codes, self.outcomes - before.outcomes, self.reasons - before.reasons)


def _sum(registry: CollectorRegistry, name: str, key: Callable[[Mapping[str, str]], Any]) -> Counter[Any]:
    counts: Counter[Any] = Counter()
    for family in registry.collect():
        for sample in family.samples:
            if sample.name == name:
                counts[key(sample.labels)] += int(sample.value)
    return counts


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does; fails after `LIMIT_S`."""
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s, "it never happened"
        time.sleep(0.005)


def request_of(rows: Any, *, path: str = "/predict", method: str = "POST", headers: str = "") -> bytes:
    """A whole request for the rows; `headers` are lines with their ends."""
    body = json.dumps({"instances": rows}).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Exchange:
    """One request on a connection of its own: `send`, then `answer`, and at any time `leave`."""

    def __init__(self, port: int, request: bytes) -> None:
        self._port = port
        self._request = request

    async def send(self) -> Self:
        """Send the whole request."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(self._request)
        await self._writer.drain()
        return self

    async def answer(self) -> tuple[int, Any]:
        """Status and JSON of what comes back."""
        async with asyncio.timeout(LIMIT_S):
            head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            length = head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]
            body = await self._reader.readexactly(int(length))
        return int(head.split(b" ", 2)[1]), json.loads(body)

    async def leave(self) -> None:
        """Close the connection."""
        self._writer.close()
        await self._writer.wait_closed()


async def ask(port: int, request: bytes) -> tuple[int, Any]:
    """Send, wait, and leave."""
    exchange = await Exchange(port, request).send()
    try:
        return await exchange.answer()
    finally:
        await exchange.leave()


def tally(answers: Iterable[tuple[int, Any]], *, left: int = 0) -> Counts:
    """What clients saw; `left` of them waited for no answer."""
    answers = list(answers)
    codes = Counter(status for status, _ in answers) + Counter({499: left})
    outcomes: Counter[str] = Counter()
    for status, count in codes.items():
        outcomes[_OUTCOMES.get(status) or _OUTCOMES[status // 100]] += count
    reasons = Counter(body["error"]["reason"] for status, body in answers if status >= 400)
    return Counts(codes, outcomes, reasons + Counter({"client_disconnected": left}))


_OUTCOMES = {2: "ok", 4: "client_error", 499: "cancelled", 5: "error", 503: "rejected", 504: "expired"}
"""Of a status, else of its first digit."""
