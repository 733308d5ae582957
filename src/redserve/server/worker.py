"""One of several processes: serves the connections that the supervisor hands it, and speaks for all when it is asked.

python -m redserve.server.worker < assignment

connections ─ SCM_RIGHTS ─> uvicorn      their end ─> drain, and exit
/metrics, /readyz, /stats ─ Peers.whole ─> supervisor ─> the accounts of all, summed
"account" ─> the numbers of this process, copied in one step of its loop
"""

import asyncio
import contextlib
import itertools
import os
import pickle
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from redserve.engine.base import Engine
from redserve.errors import ModelNotReady
from redserve.metrics.workers import WorkerMetrics
from redserve.server.account import Account
from redserve.server.app import create_app
from redserve.server.channel import Channel, frame
from redserve.server.descriptors import room_for
from redserve.server.logs import configure_logging
from redserve.server.runner import LAST_ANSWERS_S, Server
from redserve.server.settings import Settings
from redserve.server.worker_process import Assignment

WHOLE_WITHIN_S = 5.0
"""For the supervisor to answer, which gives each worker a second."""


def work(engines: Mapping[str, Callable[[], Engine]] | None = None) -> int:
    """Do as standard input says; returns the exit status."""
    assignment: Assignment = pickle.load(sys.stdin.buffer)
    settings = assignment.settings
    control, connections = socket.socket(fileno=assignment.control), socket.socket(fileno=assignment.connections)
    os.set_inheritable(control.fileno(), False)
    os.set_inheritable(connections.fileno(), False)
    threading.Thread(target=_outlive, args=(control.fileno(), settings.grace_s), daemon=True).start()
    configure_logging(settings.log_level, "uvicorn.error")
    settings = settings.model_copy(update={"max_connections": room_for(settings.max_connections)})
    registry, peers = CollectorRegistry(), Peers()
    try:
        WorkerMetrics(registry)
        app = create_app(settings, engines=engines, registry=registry, whole=peers.whole)
    except ValueError as error:  # settings that do not go together
        control.sendall(frame("failed", [str(error)], 2))
        return 2
    server = WorkerServer(
        app, settings, address=assignment.address, connections=connections, control=control, peers=peers
    )
    server.run(sockets=[])
    return server.exit_status


class Peers:
    """Asks the supervisor what all workers have to say."""

    def __init__(self) -> None:
        self._channel: Channel | None = None
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Account]] = {}

    def connect(self, channel: Channel) -> None:
        """Ask over `channel`."""
        self._channel = channel

    async def whole(self) -> Account:
        """The accounts of all workers, taken from now on, as one.

        Raises:
            ModelNotReady: The supervisor is gone, or does not answer.
        """
        if self._channel is None:
            raise ModelNotReady("the server is starting")
        number = next(self._numbers)
        answer: asyncio.Future[Account] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self._channel.send("whole", number)
        try:
            async with asyncio.timeout(WHOLE_WITHIN_S):
                return await answer
        except TimeoutError as error:
            raise ModelNotReady("the supervisor does not answer") from error
        finally:
            del self._asked[number]

    def told(self, number: int, account: Account) -> None:
        """The supervisor has answered."""
        answer = self._asked.get(number)
        if answer is not None and not answer.done():
            answer.set_result(account)


class WorkerServer(Server):
    """A server without a port or signals of its own."""

    def __init__(
        self,
        app: FastAPI,
        settings: Settings,
        *,
        address: tuple[str, int],
        connections: socket.socket,
        control: socket.socket,
        peers: Peers,
    ) -> None:
        super().__init__(app, settings)
        self._address = address
        self._connections = connections
        self._control = control
        self._peers = peers
        self._arriving: set[asyncio.Task[Any]] = set()

    @property
    def address(self) -> tuple[str, int]:
        """Where the supervisor listens."""
        return self._address

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They are the supervisor's."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections as they are handed over; the models load meanwhile."""
        self._channel = await Channel.over(self._control)
        self._peers.connect(self._channel)
        await super().startup(sockets)
        self._tasks.append(asyncio.create_task(self._obey()))
        self._connections.setblocking(False)
        asyncio.get_running_loop().add_reader(self._connections, self._take)
        self._channel.send("begun")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As ever; the last account is the last word."""
        await super().shutdown(sockets)
        self._channel.send("account", None, self._serving.account())
        await self._channel.flush()

    def announce(self, text: str) -> None:
        """The supervisor says it once all are ready."""
        self._channel.send("ready", text)

    def give_up(self, lines: list[str]) -> None:
        """The supervisor says why, and ends the others."""
        self._channel.send("failed", lines, 1)
        super().give_up([])

    async def _obey(self) -> None:
        while (message := await self._channel.receive()) is not None:
            match message:
                case ("account", number):
                    self._channel.send("account", number, self._serving.account())
                case ("whole", number, account):
                    self._peers.told(number, account)
                case ("draining",):
                    self._serving.draining = True
                case ("stop",):
                    self._serving.draining = True
                    self.should_exit = self.force_exit = True
                    self.exit_status = 1

    def _take(self) -> None:
        """Serve the connections that have come; their end, and the supervisor's, is the signal to drain."""
        try:
            while True:
                mark, received, _, _ = socket.recv_fds(self._connections, 1, 1)
                for number in received:
                    connection = socket.socket(fileno=number)
                    connection.setblocking(False)
                    task = asyncio.create_task(self._serve_one(connection))
                    self._arriving.add(task)
                    task.add_done_callback(self._arriving.discard)
                if not mark:
                    break
        except BlockingIOError:
            return
        except OSError:
            pass
        asyncio.get_running_loop().remove_reader(self._connections)
        self._tasks.append(asyncio.create_task(self._drain()))

    async def _serve_one(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._new_protocol, connection)
        except OSError:  # the client has left
            connection.close()

    async def _drain(self) -> None:
        self._serving.draining = True
        if self._arriving:
            await asyncio.wait(self._arriving)
        self.should_exit = True


def _outlive(control: int, grace_s: float) -> None:
    """End a process that its supervisor has left and that does not end by itself, whatever its loop is stuck in."""
    left = select.poll()
    left.register(control, 0)  # tells of a hang-up only
    left.poll()
    time.sleep(grace_s + 2 * LAST_ANSWERS_S)
    os._exit(1)


def main() -> None:
    """Work, then end without the interpreter's farewell, as `redserve serve` does."""
    status = work()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
