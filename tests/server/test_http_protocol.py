"""One connection told the time, on a transport that only remembers."""

import asyncio

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from redserve.server.http_protocol import HttpLimits, HttpProtocol


class Transport:
    """Takes everything, and keeps `unsent_bytes` of it."""

    unsent_bytes = 0
    is_aborted = False

    def __init__(self):
        self.written = b""

    def get_extra_info(self, name, default=None):
        return default

    def get_write_buffer_size(self):
        return self.unsent_bytes

    def write(self, data):
        self.written += data

    def can_write_eof(self):
        return False

    def is_closing(self):
        return False

    def abort(self):
        self.is_aborted = True


@pytest.fixture
def connection():
    loop = asyncio.new_event_loop()
    limits = HttpLimits(header_timeout_s=1e9, write_timeout_s=20)
    connection = HttpProtocol(Config(None), ServerState(), {}, loop, limits=limits)
    connection.connection_made(Transport())
    yield connection
    loop.close()


def cut_off_after_s(connection, *, bytes_per_s, of_bytes=1_000_000, within_s=900):
    """When a client that reads at this rate is cut off, looked at each second; `None`: not within that time."""
    for now_s in range(within_s + 1):
        connection.transport.unsent_bytes = of_bytes - now_s * bytes_per_s
        connection.check(now_s)
        if connection.transport.is_aborted:
            return now_s
    return None


def test_who_reads_nothing_is_cut_off_after_the_timeout(connection):
    assert cut_off_after_s(connection, bytes_per_s=0) == 20


def test_who_reads_a_thousand_bytes_a_second_is_never_cut_off(connection):
    assert cut_off_after_s(connection, bytes_per_s=1_000) is None


def test_who_reads_slower_is_cut_off_in_the_end(connection):
    assert cut_off_after_s(connection, bytes_per_s=500) == 40


def test_answers_that_are_added_are_no_excuse(connection):
    assert cut_off_after_s(connection, bytes_per_s=-1_000) == 20


def test_time_in_which_nothing_waits_does_not_count(connection):
    assert cut_off_after_s(connection, bytes_per_s=0, within_s=19) is None
    connection.transport.unsent_bytes = 0
    connection.check(19.5)

    assert cut_off_after_s(connection, bytes_per_s=0, within_s=19) is None
