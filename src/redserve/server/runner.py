"""Runs the application under uvicorn, owns the signals, and says what came up.

    SIGTERM, SIGINT ─> not ready ─ (`drain_delay_s`) ─> no new connections ─> all in flight is answered ─> exit 0
    `grace_s` did not suffice ─> the rest is answered 503 ─> exit 1, where there was a request to answer
    the same signal again     ─> at once ─> exit 1

uvicorn by itself raises the signal again once it is done, and so ends with status 143.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from functools import partial
from types import FrameType

import uvicorn
from fastapi import FastAPI

from redserve.server.app import Serving, create_app
from redserve.server.application import has_only_own_middleware
from redserve.server.backlog import close_and_take_backlog
from redserve.server.banner import banner
from redserve.server.descriptors import room_for
from redserve.server.http_limits import HttpLimits
from redserve.server.http_protocol import HttpProtocol
from redserve.server.logs import configure_logging
from redserve.server.settings import Settings

logger = logging.getLogger("redserve.server")

LAST_ANSWERS_S = 2
"""For sending the refusals once the grace time is over."""

LAST_TURNS_S = 0.5
"""The same after a second signal: what is ready to be sent, and no more."""

CHECK_EVERY_S = 1.0

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(settings: Settings) -> int:
    """Serve until a signal ends it, or a model cannot be loaded that nobody can put right while it runs.

    Returns:
        The exit status: 0 after a drain; 1 when the port was taken, a model could not be loaded, the grace time did not
            suffice, or a second signal came.
    """
    configure_logging(settings.log_level, "uvicorn.error")
    settings = settings.model_copy(update={"max_connections": room_for(settings.max_connections)})
    app = create_app(settings)
    server = Server(app, settings)
    try:
        server.run()
    except SystemExit as error:  # uvicorn, when it cannot start; it has logged why
        return int(error.code or 0) and 1
    return server.exit_status


class Server(uvicorn.Server):
    """A uvicorn server that drains on the first signal and stops on the second.

    Attributes:
        exit_status: What the process should end with.
    """

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        serving: Serving = app.state.redserve
        serving.owns_process = True
        # Middleware that was added to the application is to see every request: they go through ASGI then.
        serving.fast_door.is_open = has_only_own_middleware(app)
        super().__init__(
            uvicorn.Config(
                app,
                http=partial(  # type: ignore[arg-type]  # uvicorn only calls it
                    HttpProtocol,
                    limits=HttpLimits(
                        max_header_bytes=settings.max_header_kib * 1024,
                        header_timeout_s=settings.header_timeout_s,
                        write_timeout_s=settings.write_timeout_s,
                        max_connections=settings.max_connections,
                    ),
                    door=serving.fast_door,
                ),
                host=settings.host,
                port=settings.port,
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=True,
                timeout_graceful_shutdown=settings.grace_s + LAST_ANSWERS_S,
            )
        )
        self.exit_status = 0
        self._drain_delay_s = settings.drain_delay_s
        self._grace_s = settings.grace_s
        self._serving = serving
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on, once started."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return host, port

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to stop."""
        try:
            await super().serve(sockets)
        finally:
            for task in self._tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; the models load meanwhile."""
        await super().startup(sockets)
        self._tasks += [asyncio.create_task(self._announce()), asyncio.create_task(self._check_connections())]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections; whatever `grace_s` does not suffice for is turned away, not dropped."""
        self._tasks.append(asyncio.create_task(self._turn_away_after_grace()))
        await close_and_take_backlog(self.servers, self._new_protocol, limit=self.config.backlog, tls=self.config.ssl)
        await super().shutdown(sockets)
        if self.force_exit:  # uvicorn then leaves all to be cancelled, which ends in 500s and tracebacks
            await self._turn_away()
            if self.server_state.tasks:
                await asyncio.wait(self.server_state.tasks, timeout=LAST_TURNS_S)
            await self.lifespan.shutdown()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM while serving, and give them back without raising them again."""
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: drain. Second: stop at once."""
        if self._serving.draining:
            self.should_exit = self.force_exit = True
            self.exit_status = 1
            return
        self._serving.draining = True
        if self._drain_delay_s:
            self._tasks.append(asyncio.get_running_loop().create_task(self._exit_after_drain_delay()))
        else:
            self.should_exit = True

    def announce(self, text: str) -> None:
        """It is ready."""
        print(text, flush=True)

    def give_up(self, lines: list[str]) -> None:
        """It never will be ready: say why, and end."""
        _complain(lines)
        self.exit_status = 1
        self.should_exit = True

    def _new_protocol(self) -> asyncio.Protocol:
        """As uvicorn makes them."""
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    async def _check_connections(self) -> None:
        """Once a second, so that no request needs a timer of its own."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            now_s = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, HttpProtocol):
                    connection.check(now_s)

    async def _exit_after_drain_delay(self) -> None:
        """Not ready, but still serving: until load balancers have noticed."""
        await asyncio.sleep(self._drain_delay_s)
        self.should_exit = True

    async def _turn_away_after_grace(self) -> None:
        await asyncio.sleep(self._grace_s)
        logger.warning("grace time is over, what still waits is turned away", extra={"grace_s": self._grace_s})
        await self._turn_away()

    async def _turn_away(self) -> None:
        """Answer all that is left, which is a failure where it is a request."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, HttpProtocol) and connection.end_grace():
                self.exit_status = 1
        await self._serving.repository.drain(grace_s=0)

    async def _announce(self) -> None:
        """Once the models are loaded: say what came up, or give up when one did not."""
        await self._serving.loaded.wait()
        if self.should_exit:
            return
        failed = self._serving.repository.not_ready()
        lines = [f"model {name!r} cannot be served: {reason}" for name, reason in failed.items()]
        if failed and self._serving.repository.mode == "none":  # else what is wrong may be put right while it runs
            self.give_up(lines)
            return
        _complain(lines)
        try:
            self.announce(banner(self._serving, *self.address))
        except Exception:  # an engine of the user's may describe itself badly; that is no reason not to serve
            logger.exception("the server is ready, but cannot be described")


def _complain(lines: list[str]) -> None:
    for line in lines:
        print(f"redserve: {line}", file=sys.stderr, flush=True)
