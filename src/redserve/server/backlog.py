"""Closing a listening socket without resetting those who have connected already.

A client is connected, and may have sent its request, once the kernel has put it in the backlog; closing the listening
socket resets all that are still there. On a busy server that is 20 clients of 32 at each shutdown, none of which has
done anything wrong. So the backlog is emptied at the last moment, with no turn of the loop in between.
"""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Sequence


async def close_and_take_backlog(
    servers: Sequence[asyncio.Server],
    new_protocol: Callable[[], asyncio.Protocol],
    *,
    limit: int,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Listen no more, and serve the connections that the kernel had accepted by then.

    Args:
        servers: Close their sockets, whether or not there is room for those who wait.
        new_protocol: Makes the protocol of a connection.
        limit: Connections taken from a backlog at most.
        tls: What the connections speak.
    """
    connected: list[socket.socket] = []
    for server in servers:
        duplicates: list[socket.socket] = []
        with contextlib.suppress(OSError):  # no file descriptor is left, so that nobody could be taken anyway
            duplicates.extend(socket.socket(fileno=os.dup(listening.fileno())) for listening in server.sockets)
        server.close()  # the loop accepts no more; the sockets live on in their duplicates
        for listening in duplicates:
            with listening, contextlib.suppress(OSError):  # would block: the backlog is empty
                listening.setblocking(False)
                for _ in range(limit):
                    connection, _ = listening.accept()
                    connection.setblocking(False)
                    connected.append(connection)
    loop = asyncio.get_running_loop()
    await asyncio.gather(
        *(loop.connect_accepted_socket(new_protocol, connection, ssl=tls) for connection in connected),
        return_exceptions=True,  # who has left meanwhile
    )
