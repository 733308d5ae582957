"""One client on one connection, which the server has taken before anything is timed."""

import http.client
import socket
from types import TracebackType
from typing import Any, Self

from gpu.bodies import answer_of
from load.wire import head

LIMIT_S = 120.0


class Client:
    """Connected while entered; a server closes a connection on which nothing is asked for some seconds."""

    def __init__(self, port: int) -> None:
        self._port = port

    def __enter__(self) -> Self:
        self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=LIMIT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._exchange(head("GET", "/livez"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self, form: str, request: bytes) -> Any:
        """Send a request; the only output of its answer.

        Raises:
            RuntimeError: Another status than 200.
        """
        headers, body = self._exchange(request)
        return answer_of(form, headers, body)

    def _exchange(self, request: bytes) -> tuple[Any, bytes]:
        self._socket.sendall(request)
        answer = http.client.HTTPResponse(self._socket)
        answer.begin()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {body[:300]!r}")
        return answer.headers, body
