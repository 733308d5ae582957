"""The least HTTP server: one constant answer. What a sender can send is proven against it, not claimed.

python benchmarks/load/bare_server.py        prints its port, serves until it is terminated
"""

import asyncio
from typing import cast

import uvloop

BODY = b'{"predictions":[0.0]}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)


class Constant(asyncio.Protocol):
    """Answers each read, which holds one request of a sender that has one at a time on a connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(ANSWER)


async def main() -> None:
    """Serve."""
    server = await asyncio.get_running_loop().create_server(Constant, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
