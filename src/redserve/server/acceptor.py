"""Takes the connections of one port and hands them to the workers in turn.

    listening socket ─ accept ─> the next worker that has room ─ SCM_RIGHTS ─> its event loop
                                 none has ─> accept no more until one has

A connection that the kernel has accepted is lost when its listening socket closes; with one owner of that socket, the
last look at the backlog comes right before the end, and nobody else's backlog is left (`backlog.py` for one process).
"""

import asyncio
import contextlib
import logging
import socket
from collections import deque
from typing import Protocol

BACKLOG = 2_048

_ACCEPTS_A_TURN = 16  # of the loop, which has signals and scrapes to attend to
_FULL_S = 0.01
"""Between two looks whether a worker has room again: it may have none though its socket can be written, since the
system also limits how many descriptors of one user are on their way."""

_EXHAUSTED_S = 1.0
"""Until the system may have a descriptor again."""

logger = logging.getLogger("redserve.server")


class Taker(Protocol):
    """A worker, as far as connections go."""

    connections: socket.socket
    """Over which it takes them; not blocking."""


def listen(host: str, port: int) -> socket.socket:
    """Listen at an address.

    Raises:
        OSError: It is taken, or is no address of this machine.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


class Acceptor:
    """Owns a listening socket; on the running event loop."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._loop = asyncio.get_running_loop()
        self._takers: deque[Taker] = deque()  # next in turn first
        self._waiting: deque[socket.socket] = deque()
        self._none_waits = asyncio.Event()
        self._is_accepting = self._is_paused = False

    def add(self, taker: Taker) -> None:
        """Let one more take connections; one that does already is no mistake."""
        if taker not in self._takers:
            self._takers.appendleft(taker)
            self._place()

    def remove(self, taker: Taker) -> None:
        """Hand it no more, before it is closed; one that takes none is no mistake."""
        if taker in self._takers:
            self._takers.remove(taker)
            self._place()

    def stop(self) -> None:
        """Accept whoever has connected, and listen no more; a second time does nothing."""
        if self._listening.fileno() >= 0:
            self._accept(BACKLOG)
            self._stop_accepting()
            self._listening.close()

    async def close(self, *, within_s: float) -> None:
        """Stop, and hand out whoever waits, if workers have room within that time."""
        self.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._none_waits.wait()
        for taker in list(self._takers):
            self.remove(taker)
        while self._waiting:
            self._waiting.popleft().close()

    def _accept(self, most: int = _ACCEPTS_A_TURN) -> None:
        try:
            for _ in range(most):
                connection, _ = self._listening.accept()
                self._waiting.append(connection)
                self._place()
        except (BlockingIOError, ConnectionAbortedError):  # who has left again
            pass
        except OSError as error:
            logger.warning("no connection can be accepted for now", extra={"reason": error.strerror})
            self._pause(_EXHAUSTED_S)
            self._place()

    def _pause(self, pause_s: float) -> None:
        if not self._is_paused:
            self._is_paused = True
            self._loop.call_later(pause_s, self._resume)

    def _resume(self) -> None:
        self._is_paused = False
        self._place()

    def _place(self) -> None:
        """Hand out what waits, and accept again once nothing does."""
        while self._waiting and self._hand_over(self._waiting[0]):
            self._waiting.popleft().close()
        if self._waiting:
            self._none_waits.clear()
            self._stop_accepting()
            if self._takers:
                self._pause(_FULL_S)
            return
        self._none_waits.set()
        if not self._takers or self._is_paused:
            self._stop_accepting()
        elif not self._is_accepting and self._listening.fileno() >= 0:
            self._is_accepting = True
            self._loop.add_reader(self._listening, self._accept)

    def _hand_over(self, connection: socket.socket) -> bool:
        for _ in range(len(self._takers)):
            taker = self._takers[0]
            self._takers.rotate(-1)
            try:
                socket.send_fds(taker.connections, [b"+"], [connection.fileno()])
            except OSError:  # it has no room, or is gone
                continue
            return True
        return False

    def _stop_accepting(self) -> None:
        if self._is_accepting:
            self._is_accepting = False
            self._loop.remove_reader(self._listening)
