"""An HTTP server that answers when the test says so, in the event loop of the test."""

import asyncio
from collections.abc import Callable
from typing import Self

import httptools

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class PuppetHttp:
    """Calls `on_request` for each whole request, which may call `Asked.answer`, now or later.

    Attributes:
        bodies: Of the requests, in the order they came.
        connections: That were ever opened.
    """

    def __init__(self, on_request: "Callable[[Asked], None]") -> None:
        self.on_request = on_request
        self.bodies: list[bytes] = []
        self.connections = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(lambda: Asked(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._server.close()


class Asked(asyncio.Protocol):
    """One connection, and the request that came on it last."""

    def __init__(self, puppet: PuppetHttp) -> None:
        self._puppet = puppet
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._puppet.connections += 1
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        self._puppet.bodies.append(self._body)
        self._body = b""
        self._puppet.on_request(self)

    def answer(self, raw: bytes = OK) -> None:
        self.transport.write(raw)

    def hang_up(self) -> None:
        self.transport.close()
