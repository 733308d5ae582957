"""Closing a listening socket when nothing can be opened any more."""

import asyncio
import os
import resource

import pytest

from redserve.server.backlog import close_and_take_backlog


def test_without_a_descriptor_left_the_socket_is_closed_all_the_same():
    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest_free = os.dup(server.sockets[0].fileno())
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            await close_and_take_backlog([server], asyncio.Protocol, limit=8)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(asyncio.Protocol, *address)

    asyncio.run(main())
