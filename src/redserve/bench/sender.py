"""Sends a load over kept-alive connections and tells a recorder what became of each request.

    open loop    arrivals ─ Pacer ─> due ─> waiting ─> an idle connection, else a new one ─> answered | failed
    closed loop  a free connection is the arrival; how late the sender gets to an answer is sampled

In an open loop each request leaves when the plan says so, whatever became of those before it; its latency counts from
that planned time, so neither a slow server nor a slow sender can hide a wait (no coordinated omission). In a closed
loop a slow answer delays the next request, so its latencies flatter a server that is overloaded.
"""

import asyncio
import itertools
import math
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from redserve.bench.alarm import Alarm
from redserve.bench.connection import Connection, Departure
from redserve.bench.lateness import Lateness
from redserve.bench.load import Load, tls_context
from redserve.bench.pacer import Pacer

TICK_S = 0.1
"""How often timeouts are looked for, and `on_tick` is called."""

_AT_ONCE = 64  # requests that leave before the loop looks after answers again
_RECONNECT_S = 0.1
_OVERTIME_S = 0.25  # for an open loop to send what was due before its end
_STOP_PATIENCE_S = 1.0
_LAST_S = 0.01  # how often it is looked whether the last answer has come


class Recorder(Protocol):
    """Who is told; times in seconds since the run began."""

    def answered(self, departure: Departure, *, ended_s: float, status: int, body: bytes) -> None:
        """A whole answer came, whatever its status."""
        ...

    def unanswered(self, departure: Departure, *, ended_s: float, reason: str, detail: str) -> None:
        """None came; `departure.sent_s` is `inf` if the request never left.

        Reasons: `connection_refused`, `connection_lost`, `timeout`, `not_http`, `abandoned`.
        """
        ...


class Sender:
    """One load, one event loop. `connect`, then `run`, as often as wanted, then `close`.

    Attributes:
        sent_for_s: How long it sent; less than asked for if it was stopped.
        unsent: Requests that were due when the run ended and had not left: the sender could not keep the rate.
        stopped_because: Why the run ended early, else empty.
    """

    def __init__(self, load: Load, recorder: Recorder) -> None:
        self._load = load
        self._record = recorder
        self._requests = load.requests
        self._tls = tls_context(load.tls)
        self._numbers = itertools.count()
        self._connections: set[Connection] = set()
        self._idle: list[Connection] = []
        self._waiting: deque[Departure] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._pacer: Pacer | None = None
        self._alarm: Alarm | None = None
        self._lateness: Lateness | None = None
        self._began_s = self._end_s = self._abandon_at_s = math.inf
        self._is_running = False
        self.sent_for_s = 0.0
        self.unsent = 0
        self.stopped_because = ""

    @property
    def lateness_s(self) -> list[float]:
        """In a closed loop, how late it was each time that it looked; empty in an open one."""
        return [] if self._lateness is None else self._lateness.samples_s

    def now_s(self) -> float:
        """Seconds since the run began."""
        return monotonic() - self._began_s

    async def connect(self) -> None:
        """Open the connections to begin with.

        Raises:
            OSError: The server does not take them.
        """
        missing = self._load.connections - len(self._connections)
        for first in range(0, missing, 128):  # a listening socket's backlog is 128 on many systems
            await asyncio.gather(*(self._open() for _ in range(min(128, missing - first))))

    async def run(
        self,
        *,
        duration_s: float | None = None,
        start_at_s: float | None = None,
        recorder: Recorder | None = None,
        on_tick: Callable[[float], None] = lambda now_s: None,
    ) -> None:
        """Send for `duration_s`, then wait for the last answers.

        Args:
            duration_s: In place of the load's, as for a warm-up.
            start_at_s: When to begin, on the clock of `time.monotonic`; several processes begin together.
            recorder: In place of the one given before.
            on_tick: Called every tenth of a second; raises nothing.
        """
        self._record = recorder or self._record
        self._numbers, self.unsent, self.stopped_because = itertools.count(), 0, ""
        self._abandon_at_s = math.inf
        self._end_s = self.sent_for_s = self._load.duration_s if duration_s is None else duration_s
        self._began_s = monotonic() if start_at_s is None else start_at_s
        if (early_s := -self.now_s()) > 0:
            await asyncio.sleep(early_s)
        self._is_running = True
        if self._load.arrivals is None:
            self._lateness = Lateness()
            for _ in range(self._load.connections - len(self._connections)):  # lost since they were opened
                self._open_later()
            while (connection := self._idle_connection()) is not None:
                self._free(connection)
        else:
            self._pacer = Pacer(self._load.arrivals, end_s=self._end_s)
            self._alarm = Alarm(self._send_due)
            self._send_due()
        try:
            await self._watch(on_tick)
        finally:
            self._is_running = False
            if self._alarm is not None:
                self._alarm.close()
                self._alarm = None
            if self._lateness is not None:
                self._lateness.close()

    def stop(self, because: str) -> None:
        """Send nothing more; what is under way is waited for a moment longer."""
        self.stopped_because = self.stopped_because or because
        self._abandon_at_s = self.now_s() + _STOP_PATIENCE_S
        self.sent_for_s = min(self.sent_for_s, self.now_s())
        self._end_s = -math.inf

    async def close(self) -> None:
        """Hang up."""
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        for connection in list(self._connections):
            connection.transport.close()
        await asyncio.sleep(0)

    # What connections tell

    def answered(self, connection: Connection, departure: Departure, status: int, body: bytes) -> None:
        """A whole answer; the connection is free, unless it was lost with it."""
        self._record.answered(departure, ended_s=monotonic() - self._began_s, status=status, body=body)
        if connection in self._connections:
            self._free(connection)
        elif self._is_running:
            self._open_later()

    def failed(self, connection: Connection, departure: Departure, reason: str, detail: str) -> None:
        """No answer; the connection is lost."""
        self.lost(connection)
        self._record.unanswered(departure, ended_s=self.now_s(), reason=reason, detail=detail)
        if self._is_running:
            self._open_later()

    def lost(self, connection: Connection) -> None:
        """It is of no use any more; may be told twice."""
        self._connections.discard(connection)

    # Sending

    def _free(self, connection: Connection) -> None:
        if self._waiting:
            self._send(connection, self._waiting.popleft())
        elif self._load.arrivals is None and self._is_running and (now_s := monotonic() - self._began_s) < self._end_s:
            self._send(connection, Departure(next(self._numbers), now_s, now_s))
        else:
            self._idle.append(connection)

    def _send(self, connection: Connection, departure: Departure) -> None:
        departure.sent_s = monotonic() - self._began_s
        connection.send(departure, self._requests[departure.number % len(self._requests)])

    def _send_due(self) -> None:
        pacer, alarm = self._pacer, self._alarm
        if pacer is None or alarm is None:
            return
        now_s = self.now_s()
        if now_s >= self._end_s + _OVERTIME_S:  # what is still due could not leave in time
            self.unsent += pacer.drop(now_s=min(now_s, self.sent_for_s))
            return
        for planned_s in pacer.take(now_s=now_s, limit=_AT_ONCE):
            departure = Departure(next(self._numbers), planned_s, now_s)
            connection = self._idle_connection()
            if connection is None:
                self._waiting.append(departure)
                self._open_later()
            else:
                self._send(connection, departure)
        next_s = pacer.next_s()
        if next_s < math.inf:
            alarm.set(self._began_s + next_s)

    def _idle_connection(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection in self._connections:
                return connection
        return None

    # Connecting

    def _open_later(self) -> None:
        """Open one more, if fewer are there or coming than the load allows."""
        if len(self._connections) + len(self._opening) < self._load.most_connections:
            task = asyncio.get_running_loop().create_task(self._reopen())
            self._opening.add(task)

    async def _reopen(self) -> None:
        planned_s = self.now_s()
        is_closed = self._load.arrivals is None
        try:
            while self._is_running and (self._waiting or (is_closed and self.now_s() < self._end_s)):
                try:
                    await self._open()
                except OSError as error:
                    self._refused(planned_s, error)
                    await asyncio.sleep(_RECONNECT_S)
                    planned_s = self.now_s()
                else:
                    return
        finally:  # at once: who asks in the same turn of the loop, as the next run may, must not count on it
            self._opening -= {asyncio.current_task()}

    async def _open(self) -> None:
        load = self._load
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self), load.host, load.port, ssl=self._tls
        )
        self._connections.add(connection)
        self._free(connection)

    def _refused(self, planned_s: float, error: OSError) -> None:
        """Nobody takes a connection: a waiting request has failed, or the one a closed loop would have sent."""
        if self._waiting:
            departure = self._waiting.popleft()
        elif self._load.arrivals is None:
            departure = Departure(next(self._numbers), planned_s, planned_s)
        else:  # another connection has taken what this one was for
            return
        departure.sent_s = math.inf
        self._record.unanswered(departure, ended_s=self.now_s(), reason="connection_refused", detail=str(error))

    # Ending

    async def _watch(self, on_tick: Callable[[float], None]) -> None:
        """Until everything has ended, look for timeouts."""
        while True:
            now_s = self.now_s()
            on_tick(now_s)
            if now_s >= self._abandon_at_s:
                self._expire(math.inf, "abandoned", "the run was stopped")
            self._expire(now_s - self._load.timeout_s, "timeout", "no answer in time")
            is_over = now_s >= self._end_s
            if is_over and self._is_all_sent(now_s) and not any(each.departure for each in self._connections):
                return
            await asyncio.sleep(_LAST_S if is_over else min(TICK_S, self._end_s - now_s))

    def _is_all_sent(self, now_s: float) -> bool:
        if self._pacer is not None and now_s >= self._end_s + _OVERTIME_S:
            self.unsent += self._pacer.drop(now_s=min(now_s, self.sent_for_s))
        return not self._waiting and (self._pacer is None or self._pacer.next_s() == math.inf)

    def _expire(self, planned_before_s: float, reason: str, detail: str) -> None:
        for connection in [each for each in self._connections if each.departure is not None]:
            if connection.departure is not None and connection.departure.planned_s < planned_before_s:
                departure = connection.abandon()
                if departure is not None:
                    self.failed(connection, departure, reason, detail)
        while self._waiting and self._waiting[0].planned_s < planned_before_s:
            departure = self._waiting.popleft()
            departure.sent_s = math.inf
            self._record.unanswered(departure, ended_s=self.now_s(), reason=reason, detail=detail)
