"""The sending processes of a run, seen from the parent: started together, watched, their tallies added up."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self, cast

from redserve.bench.arrivals import Share
from redserve.bench.load import Load
from redserve.bench.mistakes import BenchError
from redserve.bench.orders import Go, Progress, Ready, Refused, Stop
from redserve.bench.tally import Tally

_LEAD_S = 0.05  # from the order to its time, so that all processes have it by then
_CONNECT_LIMIT_S = 60.0
_LOOK_S = 0.25
_END_LIMIT_S = 5.0

OnProgress = Callable[[float, Progress], None]
"""Called with the seconds since the run began and what is new."""


def share_of(load: Load, *, index: int, count: int) -> Load:
    """The part of `load` that the `index`-th of `count` processes sends; all parts together are the load.

    Raises:
        ValueError: There are fewer connections than processes.
    """

    def part(whole: int) -> int:
        return whole // count + (index < whole % count)

    return replace(
        load,
        arrivals=None if load.arrivals is None else Share(load.arrivals, index, count),
        connections=part(load.connections),
        max_connections=part(load.max_connections),
        requests=[*load.requests[index::count], *load.requests[:index]] if count > 1 else load.requests,
    )


class Processes:
    """So many senders of one load; connected while entered.

    Raises:
        BenchError: The server takes no connections.
    """

    def __init__(self, load: Load, count: int) -> None:
        self._shares = [share_of(load, index=index, count=count) for index in range(count)]
        self._timeout_s = load.timeout_s
        self._pipes: list[Connection] = []
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            for share in self._shares:
                self._start(share)
            for pipe in self._pipes:
                answer = self._receive(pipe, _CONNECT_LIMIT_S)
                if isinstance(answer, Refused):
                    raise BenchError(
                        f"the server does not take {self._shares[0].connections} connections: {answer.why}"
                    )
                if not isinstance(answer, Ready):
                    raise BenchError("a sending process did not start")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._running:
            try:
                process.wait(_END_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @property
    def pids(self) -> list[int]:
        """The sending processes."""
        return [process.pid for process in self._running]

    def run(self, duration_s: float, on_progress: OnProgress) -> Tally:
        """All send for so long; what they saw together. Ctrl-C ends it early, with what there is.

        Raises:
            BenchError: A process was lost.
        """
        began_s = time.monotonic() + _LEAD_S
        self._order(Go(began_s, duration_s))
        whole, left = Tally(), set(self._pipes)
        limit_s = began_s + duration_s + self._timeout_s + _END_LIMIT_S
        while left:
            try:
                for pipe in cast("list[Connection]", wait(list(left), _LOOK_S)):
                    said = self._receive(pipe, 0)
                    if isinstance(said, Progress):
                        on_progress(time.monotonic() - began_s, said)
                        continue
                    left.discard(pipe)
                    whole.add(said)
                    if said.stopped_because:
                        self._order(Stop(said.stopped_because))
                if time.monotonic() > limit_s:
                    raise BenchError("a sending process does not come to an end")
            except KeyboardInterrupt:
                self._order(Stop("interrupted"))
        return whole

    def _start(self, share: Load) -> None:
        ours, theirs = Pipe()
        program = [sys.executable, "-m", "redserve.bench.worker", str(theirs.fileno())]
        self._running.append(subprocess.Popen(program, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL))
        theirs.close()
        self._pipes.append(ours)
        ours.send(share)

    def _order(self, order: Go | Stop) -> None:
        for pipe in self._pipes:
            pipe.send(order)

    def _receive(self, pipe: Connection, limit_s: float) -> Any:
        try:
            if pipe.poll(limit_s):
                return pipe.recv()
        except (EOFError, OSError) as error:
            raise BenchError("a sending process ended unexpectedly; its error is above") from error
        return None
