"""`redserve serve` as a process of its own, on a free port, with its output read line by line."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Self

REDSERVE = [str(Path(sys.executable).parent / "redserve")]
START_LIMIT_S = 60.0
STOP_LIMIT_S = 60.0


class Served:
    """A running `redserve serve ARGUMENTS --port 0`, or another `program` that takes the same and says the same.

    Attributes:
        banner: What it printed until it was ready.
        url: Where it answers.
    """

    def __init__(
        self,
        *arguments: str,
        environment: dict[str, str] | None = None,
        program: Sequence[str] = (*REDSERVE, "serve"),
    ) -> None:
        self.process = subprocess.Popen(
            [*program, *arguments, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | (environment or {}),
        )
        self._lines: Queue[str | None] = Queue()
        self._errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_output, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        self.banner = ""
        self.url = ""

    def __enter__(self) -> Self:
        for reader in self._readers:
            reader.start()
        while not self.banner.rstrip().endswith("/docs"):
            line = self.next_line()
            if line is None:
                raise RuntimeError(f"it ended with {self.process.wait()}: {self.errors}")
            self.banner += line
        self.url = self.banner.splitlines()[0].rpartition(" ")[2]
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    @property
    def errors(self) -> str:
        """What it wrote to standard error so far."""
        return "".join(self._errors)

    @property
    def curl(self) -> str:
        """The command that it offers for a try."""
        lines = self.banner.splitlines()
        return lines[lines.index("  try it:") + 1].strip()

    def next_line(self) -> str | None:
        """The next line of its output; `None` when it has closed it."""
        try:
            return self._lines.get(timeout=START_LIMIT_S)
        except Empty:
            raise RuntimeError(f"it printed nothing for {START_LIMIT_S:g} s: {self.errors}") from None

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit status, once it has ended by itself."""
        status = self.process.wait(STOP_LIMIT_S)
        for reader in self._readers:
            reader.join(STOP_LIMIT_S)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        return status

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self._errors.extend(self.process.stderr)
