"""An ASGI app on a real uvicorn, in a thread of its own, on a free port of 127.0.0.1."""

import asyncio
import socket
import threading
import time
from typing import Any, Self

import uvicorn
from fetch import fetch

START_LIMIT_S = 20.0
STOP_LIMIT_S = 10.0


class CheckingServer(uvicorn.Server):
    """Looks at the connections that want to be looked at, as redserve's does."""

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        now_s = asyncio.get_running_loop().time()
        for connection in list(self.server_state.connections):
            if hasattr(connection, "check"):
                connection.check(now_s)
        return await super().on_tick(counter)


class LiveApp:
    """Serves `app` from `__enter__` to `__exit__`; further arguments go to `uvicorn.Config`.

    Attributes:
        port: Where it listens.
        url: `http://127.0.0.1:port`, without a slash at the end.
    """

    def __init__(self, app: Any, **config: Any) -> None:
        settings: dict[str, Any] = {
            "log_level": "critical",
            "access_log": False,
            "timeout_graceful_shutdown": 5,
        } | config
        self._server = CheckingServer(uvicorn.Config(app, **settings))
        self._thread = threading.Thread(target=self._serve, name="live app", daemon=True)
        self._failure: BaseException | None = None
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        deadline_s = time.monotonic() + START_LIMIT_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline_s:
                self._server.should_exit = True
                self._socket.close()
                raise RuntimeError("the app did not start") from self._failure
            time.sleep(0.01)
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.should_exit = True
        self._thread.join(STOP_LIMIT_S)
        self._socket.close()
        if self._thread.is_alive():
            raise RuntimeError("the app did not stop")

    def get(self, path: str) -> str:
        """The body of a GET that must succeed."""
        return fetch(self.url + path)

    def _serve(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except BaseException as failure:  # uvicorn leaves with SystemExit when the lifespan fails
            self._failure = failure
