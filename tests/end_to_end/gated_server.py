"""`redserve serve` for an engine that, at a row of 1 or more, waits for the file `$GATE`, whoever interrupts it.

With `$LOADS`, a folder, the first process loads it at once; every other says there that it `waits`, and does once there
is `all`.
"""

import os
import sys
import time
from pathlib import Path

from puppet_engine import PuppetEngine
from redserve.server import Settings, create_app
from redserve.server.logs import configure_logging
from redserve.server.runner import Server
from redserve.server.supervisor import supervise
from redserve.server.worker import work


class GatedEngine(PuppetEngine):
    """A puppet that another process holds; made-up rows are below 1."""

    gate = Path(os.environ.get("GATE", "/nowhere"))

    def run(self, tensors):
        answer = super().run(tensors)
        while tensors["x"].max() >= 1 and not self.gate.exists():
            time.sleep(0.01)
        return answer


def load() -> GatedEngine:
    """The engine, when it is this process's turn."""
    loads = os.environ.get("LOADS")
    if loads is not None:
        try:
            Path(loads, "first").touch(exist_ok=False)
        except FileExistsError:
            Path(loads, "waits").touch()
            while not Path(loads, "all").exists():
                time.sleep(0.01)
    return GatedEngine()


def main(arguments: list[str]) -> int:
    """Serve with flags in pairs: `--grace-s 1 --port 0`; or be one of several workers: `worker`."""
    if arguments == ["worker"]:
        return work({"gated": load})
    names = [name.removeprefix("--").replace("-", "_") for name in arguments[::2]]
    settings = Settings.load(dict(zip(names, arguments[1::2], strict=True)))
    if settings.workers > 1:
        return supervise(settings, program=(sys.executable, __file__, "worker"))
    configure_logging(settings.log_level, "uvicorn.error")
    server = Server(create_app(settings, engines={"gated": load}), settings)
    server.run()
    return server.exit_status


if __name__ == "__main__":
    status = main(sys.argv[1:])
    if sys.argv[1:] == ["worker"]:
        os._exit(status)  # as a worker ends
    sys.exit(status)
