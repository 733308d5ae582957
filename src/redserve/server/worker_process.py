"""One worker as the supervisor sees it: a fresh process, a way for connections, and a channel for everything else."""

import asyncio
import contextlib
import itertools
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Self

from redserve.server.account import Account
from redserve.server.channel import Channel
from redserve.server.settings import Settings

WORKER = (sys.executable, "-P", "-m", "redserve.server.worker")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Assignment:
    """What a worker is told at its start.

    Attributes:
        settings: What to serve.
        address: Where the server listens, host and port.
        control: File descriptor of its end of the channel.
        connections: File descriptor that connections come over; their end is the signal to drain.
    """

    settings: Settings
    address: tuple[str, int]
    control: int
    connections: int


class WorkerProcess:
    """A worker.

    Attributes:
        place: Which of the workers it is; the one that comes after it has the same.
        connections: Over which it takes connections.
        account: The latest that it gave of itself; `None` until the first.
        has_begun: Whether it serves, be it that its models still load.
        ready_since_s: When it was ready first.
        is_replacement: Whether it came for one that died.
        is_silent: Whether it did not answer when it was asked last.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], channel: Channel, connections: socket.socket, *, place: int
    ) -> None:
        self.place = place
        self.connections = connections
        self.account: Account | None = None
        self.has_begun = False
        self.ready_since_s: float | None = None
        self.is_replacement = False
        self.is_silent = False
        self._process = process
        self._channel = channel
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[None]] = {}

    @classmethod
    async def start(cls, program: Sequence[str], settings: Settings, address: tuple[str, int], *, place: int) -> Self:
        """Start a process; blocks for the milliseconds that the system takes for that."""
        control, its_control = socket.socketpair()
        connections, its_connections = socket.socketpair()
        assignment = Assignment(settings, address, its_control.fileno(), its_connections.fileno())
        with its_control, its_connections:
            process = _spawn(program, assignment)
        connections.setblocking(False)
        return cls(process, await Channel.over(control), connections, place=place)

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    @property
    def ready_s(self) -> float:
        """For how long it has been ready."""
        return 0.0 if self.ready_since_s is None else monotonic() - self.ready_since_s

    def tell(self, *message: Any) -> None:
        """Send it a message."""
        self._channel.send(*message)

    async def hear(self) -> tuple[Any, ...] | None:
        """Its next message, accounts aside, or `speaks` once it is silent no more; `None` once it has ended."""
        while (message := await self._channel.receive()) is not None:
            if message[0] != "account":
                return message
            _, number, self.account = message
            was_silent, self.is_silent = self.is_silent, False
            answered = self._asked.pop(number, None)
            if answered is not None and not answered.done():
                answered.set_result(None)
            if was_silent:
                return ("speaks",)
        self.is_silent = True
        for answered in self._asked.values():
            answered.cancel()
        return None

    async def ask(self, limit_s: float) -> None:
        """Have a new `account`, if it gives one within `limit_s`; one that is silent is not waited for again."""
        if self.is_silent:
            return
        number = next(self._numbers)
        answered = self._asked[number] = asyncio.get_running_loop().create_future()
        self._channel.send("account", number)
        done, _ = await asyncio.wait([answered], timeout=limit_s)
        if not done:
            self.is_silent = True

    def let_finish(self) -> None:
        """No more connections: it answers what it has, and ends."""
        self.connections.close()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    async def ended(self) -> int:
        """The exit status of a process that has closed its end of the channel; one that then goes on is killed."""
        self._channel.close()
        self.connections.close()
        try:
            return await asyncio.to_thread(self._process.wait, 5.0)
        except subprocess.TimeoutExpired:
            self.kill()
            return await asyncio.to_thread(self._process.wait)


def _spawn(program: Sequence[str], assignment: Assignment) -> subprocess.Popen[bytes]:
    """Signals never reach it: whoever sends them to all of a group means the supervisor."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        process = subprocess.Popen(
            program, stdin=subprocess.PIPE, pass_fds=(assignment.control, assignment.connections)
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert process.stdin is not None
    with contextlib.suppress(OSError), process.stdin:  # it has ended already: that will be noticed
        process.stdin.write(pickle.dumps(assignment))
    return process


def how_it_ended(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"with status {status}"
    with contextlib.suppress(ValueError):
        return f"by {signal.Signals(-status).name}"
    return f"by signal {-status}"
