"""A worker as the supervisor sees it, without a process."""

import asyncio
import socket

from redserve.server.channel import Channel
from redserve.server.worker_process import WorkerProcess


def test_a_worker_that_ends_while_it_is_asked_is_silent():
    async def main():
        control, its_control = socket.socketpair()
        connections, its_connections = socket.socketpair()
        worker = WorkerProcess(None, await Channel.over(control), connections, place=0)
        asking = asyncio.create_task(worker.ask(60.0))
        await asyncio.sleep(0)
        with connections, its_connections, its_control:
            pass
        assert await worker.hear() is None
        await asking
        return worker.is_silent

    assert asyncio.run(main())
