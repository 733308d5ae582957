"""A server in memory for raw ASGI tests: calls an application once and keeps what it sent."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry

Message = MutableMapping[str, Any]
App = Callable[..., Awaitable[None]]


class FakeClock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def scope_of(path: str = "/", method: str = "GET", **extra: Any) -> dict[str, Any]:
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"test")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    return scope | extra


async def call(
    app: App,
    path: str = "/",
    method: str = "GET",
    *,
    incoming: Iterable[Message] = (),
    scope: dict[str, Any] | None = None,
    stays: bool = False,
    on_send: Callable[[Message], None] = lambda message: None,
) -> list[Message]:
    """Send one request and return the response; `receive` returns `incoming` (one empty body), then it says disconnect.

    A client that `stays` leaves only once the response is complete.
    """
    to_come = iter([*incoming] or [{"type": "http.request", "body": b"", "more_body": False}])
    sent: list[Message] = []

    is_complete = asyncio.Event()

    async def receive() -> Message:
        message = next(to_come, None)
        if message is None and stays:
            await is_complete.wait()
        return message or {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        on_send(message)
        sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            is_complete.set()

    await app(scope_of(path, method) if scope is None else scope, receive, send)
    return sent


def counted(registry: CollectorRegistry, namespace: str = "inference") -> dict[tuple[str, ...], float]:
    """All requests that ended: (route, method, code, outcome) to how many."""
    return {
        tuple(sample.labels[label] for label in ("route", "method", "code", "outcome")): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == f"{namespace}_requests_total"
    }


def reasons(registry: CollectorRegistry) -> dict[str, float]:
    """Requests that did not end ok, by reason."""
    return {
        sample.labels["reason"]: sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "inference_errors_total"
    }


def in_flight(registry: CollectorRegistry) -> float | None:
    return registry.get_sample_value("inference_requests_in_flight")
