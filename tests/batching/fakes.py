"""Engines, observers and callers that the tests hold in their hands."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from redserve.batching import Answer, BatchReport

PATIENCE_S = 20.0
"""How long a test waits for what should have happened at once."""


class FakeClock:
    """Seconds that pass only when the test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class PuppetEngine:
    """A plain function whose every call waits until the test says how it ends."""

    def __init__(self) -> None:
        self.calls: list[list[Any]] = []
        self.threads: list[threading.Thread] = []
        self._entered = threading.Semaphore(0)
        self._endings: list[threading.Event] = []
        self._results: dict[int, Callable[[list[Any]], Any]] = {}

    def __call__(self, payloads: list[Any]) -> Any:
        ending = threading.Event()
        index = len(self.calls)
        self._endings.append(ending)
        self.threads.append(threading.current_thread())
        self.calls.append(payloads)
        self._entered.release()
        assert ending.wait(PATIENCE_S), "the test forgot to end this call"
        return self._results[index](payloads)

    async def entered(self) -> None:
        """Wait until one more call is in progress."""
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, self._entered.acquire, True, PATIENCE_S)

    def end(self, index: int, result: Callable[[list[Any]], Any] = list) -> None:
        """Let call `index` go on: it returns, or raises, what `result` does with its payloads."""
        self._results[index] = result
        self._endings[index].set()


class InterruptibleEngine(PuppetEngine):
    """A puppet that notes when somebody lost patience with it."""

    interruptions = 0

    def interrupt(self) -> None:
        self.interruptions += 1


@dataclass
class RecordingObserver:
    """A `BatchObserver` and its one recorder."""

    watched: list[tuple[str, str, int]] = field(default_factory=list)
    reports: list[BatchReport] = field(default_factory=list)
    is_closed: bool = False
    depth: Callable[[], int] = lambda: 0

    def watch(self, name: str, version: str, depth: Callable[[], int], limit: int) -> "RecordingObserver":
        self.watched.append((name, version, limit))
        self.depth = depth
        return self

    def record(self, report: BatchReport) -> None:
        assert not self.is_closed
        self.reports.append(report)

    def close(self) -> None:
        self.is_closed = True


class Inbox:
    """Collects answers, and fails a test that is answered twice."""

    def __init__(self) -> None:
        self.answers: dict[Any, Answer[Any]] = {}
        self._arrived = asyncio.Event()

    def slot(self, key: Any) -> Callable[[Answer[Any]], None]:
        """The answer callback of request `key`."""

        def answer(answer: Answer[Any]) -> None:
            assert key not in self.answers, f"{key} was answered twice"
            self.answers[key] = answer
            self._arrived.set()

        return answer

    async def wait(self, count: int) -> dict[Any, Answer[Any]]:
        """The answers, once there are `count`."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.answers) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.answers


async def turns(count: int = 3) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)
