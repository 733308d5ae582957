"""A real server for each policy, all of one workload, and what may be asked of each."""

import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import uvloop
from load.open_loop import OpenLoop
from load.sleeping_server import MAX_BATCH_SIZE
from load.watched import Scrape, cpu_s, read_scrape
from load.workloads import Workload

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "end_to_end"))
from fetch import fetch
from served import REDSERVE, Served

SETTLE_S = 60.0


class Fleet:
    """They are all there from the beginning; who is not asked sleeps."""

    def __init__(self, stack: ExitStack, workload: Workload) -> None:
        self.workload = workload
        self._stack = stack
        self._servers: dict[str, Served] = {}

    def start(self, settings: dict[str, str], *, at_once: bool) -> None:
        """Start a server a policy.

        Args:
            settings: Of the servers, by policy.
            at_once: All at the same time: quicker, but what they measure of the model then is too slow.
        """
        made = {}
        for name, flags in settings.items():
            program = self.workload.program or [*REDSERVE, "serve"]
            made[name] = Served(*self.workload.arguments, *flags.split(), program=program)
            self._stack.callback(made[name].process.kill)
            if not at_once:
                self._stack.enter_context(made[name])
        if at_once:
            for server in made.values():
                self._stack.enter_context(server)
        self._servers |= made

    def port(self, name: str) -> int:
        """Where it listens."""
        return int(self._servers[name].url.rpartition(":")[2])

    def cpu_s(self, name: str) -> float:
        """What it has burnt."""
        return cpu_s(self._servers[name].process.pid)

    def settle(self, name: str) -> Scrape:
        """Wait until nothing is in flight; what it has counted then.

        Raises:
            RuntimeError: Something stays, or its counters do not add up.
        """
        deadline_s = time.monotonic() + SETTLE_S
        while (scrape := self._scrape(name)).in_flight or scrape.queued_rows:
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"{name}: something is still in flight: {scrape}")
            time.sleep(0.1)
        if not scrape.adds_up:
            raise RuntimeError(f"{name}: the counters do not add up: {scrape}")
        return scrape

    def capacity_per_s(self, name: str, *, seconds: float) -> float:
        """Rows in a second, by a closed loop that always has four batches waiting.

        Raises:
            RuntimeError: An answer is wrong.
        """
        self.settle(name)
        sender = OpenLoop(self.port(name), self.workload.request())
        exchanges = uvloop.run(sender.saturate(seconds=seconds, lanes=4 * MAX_BATCH_SIZE))
        for number, exchange in enumerate(exchanges):
            if exchange.status != 200 or not self.workload.is_right(number, exchange.body):
                raise RuntimeError(f"wrong under saturation: {exchange}")
        first_s = seconds / 5
        return sum(first_s <= exchange.ended_s < seconds for exchange in exchanges) / (seconds - first_s)

    def stop(self) -> None:
        """SIGTERM to all.

        Raises:
            RuntimeError: One ended with another status than 0, or with a traceback.
        """
        for server in self._servers.values():
            server.signal(signal.SIGTERM)
        for name, server in self._servers.items():
            status = server.wait()
            if status or "Traceback" in server.errors:
                raise RuntimeError(f"{name} ended with {status}: {server.errors[-2_000:]}")

    def _scrape(self, name: str) -> Scrape:
        return read_scrape(fetch(f"{self._servers[name].url}/metrics", timeout_s=SETTLE_S))


def check_counters(before: Scrape, after: Scrape, statuses: list[int]) -> None:
    """Where every request was answered, the server has counted the same answers.

    Raises:
        RuntimeError: It has not.
    """
    if min(statuses) <= 0:
        return
    counted = after.ended - before.ended
    by_code = {code: sum(n for (_, _, c), n in counted.items() if c == code) for _, _, code in counted}
    seen = {str(status): statuses.count(status) for status in set(statuses)}
    if by_code != seen:
        raise RuntimeError(f"the client saw {seen}, the server counted {by_code}")
