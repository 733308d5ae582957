"""One client on one connection."""

import http.client
import socket
from types import TracebackType
from typing import Any, Self

from gpu.bodies import answer_of

LIMIT_S = 120.0


class Client:
    """Connected while entered; a server closes a connection on which nothing is asked for some seconds."""

    def __init__(self, port: int) -> None:
        self._port = port

    def __enter__(self) -> Self:
        self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=LIMIT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
        self._socket.sendall(request)
        answer = http.client.HTTPResponse(self._socket, method="POST")
        answer.begin()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {body[:300]!r}")
        return answer_of(form, answer.headers, body)
