"""A contestant's server as processes of a session of its own: all of them are counted, and all of them end."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Self

from contestants import SERVERS, Contestant, Setting, Start
from environments import interpreter
from load.watched import TICKS_PER_S
from workload import Workload, WrongAnswer

START_LIMIT_S = 60.0
STOP_LIMIT_S = 5.0
LOOK_S = 0.05


class Running:
    """From the first right answer to the end of the last process; on some of the cores, or on those of this process.

    Attributes:
        port: Where it listens.
    """

    def __init__(
        self, contestant: Contestant, workload: Workload, setting: Setting, cores: frozenset[int] | None = None
    ) -> None:
        self._workload = workload
        self._known: set[tuple[int, str]] = set()
        self.port = _free_port()
        python = interpreter(contestant.name, contestant.packages)
        start = Start(python=python, model=workload.model, port=self.port, setting=setting)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, it is closed with the server
        inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH" or not contestant.packages}
        self._process = subprocess.Popen(
            contestant.command(start),
            env=inherited
            | {
                "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
                "PEER_MODEL": str(workload.model),
                "PEER_PORT": str(self.port),
                "PEER_SETTINGS": json.dumps(setting),
                "MOSEC_PORT": str(self.port),
                "MOSEC_ADDRESS": "127.0.0.1",
                "MOSEC_LOG_LEVEL": "warning",
            }
            | contestant.variables(start),
            cwd=SERVERS,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            preexec_fn=partial(os.sched_setaffinity, 0, cores or os.sched_getaffinity(0)),
        )

    def __enter__(self) -> Self:
        try:
            self._await_start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """SIGTERM to all of them, SIGKILL to those that stay."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline_s = time.monotonic() + STOP_LIMIT_S
            while (left := self.pids()) and time.monotonic() < deadline_s:
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(LOOK_S)
                time.sleep(LOOK_S)
        self._log.close()
        if pids := self.pids():
            raise RuntimeError(f"processes {pids} do not end")
        self._process.wait()

    def cpu_s(self) -> float:
        """CPU seconds of all its processes, those that have ended included."""
        return sum(_cpu_s(fields) for fields in self._stats())

    def pids(self) -> list[int]:
        """Those that live."""
        return [int(fields[0]) for fields in self._stats() if fields[2] != "Z"]

    def _await_start(self) -> None:
        """Until every row is answered right: of several workers one may be ready long before another."""
        deadline_s = time.monotonic() + START_LIMIT_S
        while True:
            try:
                return self._workload.check(self.port)
            except (OSError, WrongAnswer, ValueError) as error:
                if self._process.poll() is not None or time.monotonic() > deadline_s:
                    self._log.seek(0)
                    said = self._log.read().decode(errors="replace")[-3_000:]
                    raise RuntimeError(f"it did not come up ({error}):\n{said}") from error
                time.sleep(LOOK_S)

    def _stats(self) -> list[list[str]]:
        """The fields of proc(5)'s `stat`, without the name, of each process that came from the one started here.

        Those of its session, and those below one of them: BentoML's workers have sessions of their own. Who was once
        one of them stays one when its parent is gone.
        """
        found = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                pid, rest = path.read_text().split(" (", 1)
                found[int(pid)] = [pid, "", *rest.rpartition(") ")[2].split()]
        ours = {pid for pid, fields in found.items() if (pid, fields[21]) in self._known}
        ours |= {pid for pid, fields in found.items() if int(fields[5]) == self._process.pid}
        while more := {pid for pid, fields in found.items() if int(fields[3]) in ours} - ours:
            ours |= more
        self._known |= {(pid, found[pid][21]) for pid in ours}  # with its start time: numbers are used again
        return [found[pid] for pid in ours]


def _cpu_s(fields: list[str]) -> float:
    """User and system time, with that of children that were waited for."""
    return sum(map(int, fields[13:17])) / TICKS_PER_S


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
