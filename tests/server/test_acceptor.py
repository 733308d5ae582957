"""Real sockets, no worker: who is handed which connection."""

import asyncio
import contextlib
import errno
import resource
import socket

import pytest

from redserve.server.acceptor import Acceptor, listen

LIMIT_S = 30.0


class Worker:
    """The two ends of what connections come over."""

    def __init__(self):
        self.connections, self.end = socket.socketpair()
        self.connections.setblocking(False)
        self.end.setblocking(False)

    def taken(self):
        """The connections that have come, which are open until the test ends."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                _, numbers, _, _ = socket.recv_fds(self.end, 1, 1)
                if not numbers:
                    break
                found += [socket.socket(fileno=number) for number in numbers]
        return found


async def connect(listening, count):
    address = listening.getsockname()
    clients = []
    for _ in range(count):
        client = socket.socket()
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, address)
        clients.append(client)
    return clients


async def until(condition):
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110  # no event tells of it
            await asyncio.sleep(0)


@pytest.fixture
def new_worker():
    with contextlib.ExitStack() as ends:

        def new():
            worker = Worker()
            ends.enter_context(worker.connections)
            ends.enter_context(worker.end)
            return worker

        yield new


@contextlib.contextmanager
def closing(*everything):
    try:
        yield
    finally:
        for each in everything:
            each.close()


def test_workers_take_connections_in_turn(new_worker):
    async def main():
        listening, workers = listen("127.0.0.1", 0), [new_worker(), new_worker()]
        acceptor = Acceptor(listening)
        for worker in workers:
            acceptor.add(worker)
        taken = [[], []]
        with closing(*await connect(listening, 9)):

            def all_here():
                for worker, its in zip(workers, taken, strict=True):
                    its += worker.taken()
                return sum(map(len, taken)) == 9

            await until(all_here)
        await acceptor.close(within_s=LIMIT_S)
        with closing(*taken[0], *taken[1]):
            return sorted(map(len, taken))

    assert asyncio.run(main()) == [4, 5]


def test_who_connects_before_there_is_a_worker_waits_for_one(new_worker):
    async def main():
        listening, worker = listen("127.0.0.1", 0), new_worker()
        acceptor = Acceptor(listening)
        with closing(*await connect(listening, 3)):
            acceptor.add(worker)
            taken = []
            await until(lambda: len(taken) == 3 or taken.extend(worker.taken()))
            await acceptor.close(within_s=LIMIT_S)
            with closing(*taken):
                return len(taken)

    assert asyncio.run(main()) == 3


def test_whoever_has_connected_when_it_closes_is_handed_over_and_nobody_after(new_worker):
    async def main():
        listening, worker = listen("127.0.0.1", 0), new_worker()
        address = listening.getsockname()
        acceptor = Acceptor(listening)
        acceptor.add(worker)
        clients = [socket.create_connection(address) for _ in range(5)]  # the loop has no turn in between
        acceptor.stop()
        acceptor.stop()
        with closing(*clients), closing(*(taken := worker.taken())):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
            return len(taken)

    assert asyncio.run(main()) == 5


def test_the_last_look_at_the_backlog_needs_no_file_descriptor_for_each_connection(new_worker):
    async def main():
        listening, worker = listen("127.0.0.1", 0), new_worker()
        acceptor = Acceptor(listening)
        acceptor.add(worker)
        clients = [socket.create_connection(listening.getsockname()) for _ in range(32)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (clients[-1].fileno() + 8, hard))
        try:
            acceptor.stop()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        with closing(*clients, *(taken := worker.taken())):
            return len(taken)

    assert asyncio.run(main()) == 32


def test_a_worker_that_has_no_room_loses_nothing_also_at_the_end(new_worker):
    async def main():
        listening, worker = listen("127.0.0.1", 0), new_worker()
        worker.connections.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        acceptor = Acceptor(listening)
        acceptor.add(worker)
        clients = await connect(listening, 64)
        closing_it = asyncio.create_task(acceptor.close(within_s=LIMIT_S))
        taken = []
        await until(lambda: len(taken) == 64 or taken.extend(worker.taken()))
        await closing_it
        with closing(*clients, *taken):
            return len(taken)

    assert asyncio.run(main()) == 64


def test_too_many_descriptors_on_their_way_are_no_reason_to_spin(new_worker, monkeypatch):
    async def main():
        listening, worker = listen("127.0.0.1", 0), new_worker()
        acceptor, tried, send = Acceptor(listening), [], socket.send_fds

        def refused(*arguments):
            tried.append(arguments)
            raise OSError(errno.ETOOMANYREFS, "too many references")

        monkeypatch.setattr(socket, "send_fds", refused)
        acceptor.add(worker)
        with closing(*await connect(listening, 1)):
            await until(lambda: tried)
            for _ in range(1_000):
                await asyncio.sleep(0)
            assert len(tried) < 500
            monkeypatch.setattr(socket, "send_fds", send)
            taken = []
            await until(lambda: taken or taken.extend(worker.taken()))
        await acceptor.close(within_s=LIMIT_S)
        with closing(*taken):
            return len(taken)

    assert asyncio.run(main()) == 1


def test_a_worker_that_is_removed_takes_no_more(new_worker):
    async def main():
        listening, gone, stays = listen("127.0.0.1", 0), new_worker(), new_worker()
        acceptor = Acceptor(listening)
        acceptor.add(gone)
        acceptor.add(stays)
        acceptor.remove(gone)
        acceptor.remove(gone)
        taken = []
        with closing(*await connect(listening, 4)):
            await until(lambda: len(taken) == 4 or taken.extend(stays.taken()))
        await acceptor.close(within_s=LIMIT_S)
        with closing(*taken):
            return gone.taken()

    assert asyncio.run(main()) == []


def test_an_address_that_is_taken_is_an_error():
    with listen("127.0.0.1", 0) as listening, pytest.raises(OSError, match="in use"):
        listen(*listening.getsockname())
