"""One connection told the time, on a transport that only remembers."""

import json
from collections import Counter

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from redserve.server import Settings, create_app
from redserve.server.http_limits import HttpLimits
from redserve.server.http_protocol import HttpProtocol

HEADER_TIMEOUT_S = 10_000
WRITE_TIMEOUT_S = 20
MAX_CONNECTIONS = 3


class Loop:
    """Its time is what the test says, and nothing ever happens later."""

    now_s = 0.0

    def time(self):
        return self.now_s

    def call_later(self, delay_s, callback, *arguments):
        pass


class Transport:
    """Takes everything, and keeps `unsent_bytes` of it."""

    unsent_bytes = 0
    is_aborted = is_closed = False

    def __init__(self):
        self.written = b""

    def set_protocol(self, protocol):
        self.protocol = protocol

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

    def close(self):
        self.is_closed = True

    def abort(self):
        self.is_aborted = True


@pytest.fixture
def connection(registry):
    return connect(registry)


def connect(registry, **settings):
    limits = HttpLimits(
        header_timeout_s=HEADER_TIMEOUT_S, write_timeout_s=WRITE_TIMEOUT_S, max_connections=MAX_CONNECTIONS
    )
    door = create_app(Settings.load(settings), registry=registry).state.redserve.fast_door
    connection = HttpProtocol(Config(None), ServerState(), {}, Loop(), limits=limits, door=door)
    connection.connection_made(Transport())
    connection.transport.set_protocol(connection)
    return connection


BODY = b" " * 200_000
HEAD = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Length: 200000\r\n\r\n"
SMALL = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n[]"
KEY = {"inference_keys": "a-key-for-inference"}


def receive(connection, data):
    """As the transport hands `data` to whoever is its protocol."""
    while data and connection.transport.protocol is not connection:
        direct = connection.transport.protocol
        memory = direct.get_buffer(-1)
        size_bytes = min(len(memory), len(data))
        memory[:size_bytes] = data[:size_bytes]
        direct.buffer_updated(size_bytes)
        data = data[size_bytes:]
    if data:
        connection.data_received(data)


def cut_off_after_s(connection, *, bytes_per_s, began_s=1_000, of_bytes=1_000_000, within_s=900):
    """When a client that reads at this rate is cut off, looked at each second; `None`: not within that time."""
    for second in range(within_s + 1):
        connection.transport.unsent_bytes = of_bytes - second * bytes_per_s
        connection.check(began_s + second)
        if connection.transport.is_aborted:
            return second
    return None


def test_who_reads_nothing_is_cut_off_after_the_timeout(connection):
    assert cut_off_after_s(connection, bytes_per_s=0) == WRITE_TIMEOUT_S


def test_who_reads_a_thousand_bytes_a_second_is_never_cut_off(connection):
    assert cut_off_after_s(connection, bytes_per_s=1_000) is None


def test_who_reads_slower_is_cut_off_in_the_end(connection):
    assert cut_off_after_s(connection, bytes_per_s=500) == 2 * WRITE_TIMEOUT_S


def test_answers_that_are_added_are_no_excuse(connection):
    assert cut_off_after_s(connection, bytes_per_s=-1_000) == WRITE_TIMEOUT_S


def test_time_in_which_nothing_waits_does_not_count(connection):
    assert cut_off_after_s(connection, bytes_per_s=0, within_s=19) is None
    connection.transport.unsent_bytes = 0
    connection.check(1_020)

    assert cut_off_after_s(connection, bytes_per_s=0, began_s=1_021) == WRITE_TIMEOUT_S


LABELS = {"route": "_other", "model": ""}


def counted(registry, reason):
    """How many have ended for this reason; all that was counted must agree with it."""
    errors = registry.get_sample_value("inference_errors_total", LABELS | {"reason": reason})
    sums = Counter()
    for family in registry.collect():
        for sample in family.samples:
            sums[sample.name] += sample.value
    assert sums["inference_requests_received_total"] == sums["inference_requests_total"] == errors
    assert sums["inference_request_latency_seconds_count"] == errors
    assert sums["inference_requests_in_flight"] == 0
    return errors


def ended(registry, method, code, outcome):
    labels = LABELS | {"method": method, "code": code, "outcome": outcome}
    return registry.get_sample_value("inference_requests_total", labels)


def test_what_is_no_http_is_counted_without_a_method(connection, registry):
    connection.data_received(b"NONSENSE\r\n\r\n")

    assert connection.transport.written.startswith(b"HTTP/1.1 400 ")
    assert counted(registry, "bad_request") == ended(registry, "_other", "400", "client_error") == 1


def test_a_refused_head_is_counted_under_its_method_with_the_time_since_its_first_byte(connection, registry):
    connection.data_received(b"PUT /predict HTTP/1.1\r\n")
    connection.loop.now_s += 7
    connection.data_received(b"A: b\r\n" * 258)  # the parser tells of a header once it sees the next one

    assert connection.transport.written.startswith(b"HTTP/1.1 431 ")
    assert counted(registry, "headers_too_large") == ended(registry, "PUT", "431", "client_error") == 1
    labels = {"route": "_other", "method": "PUT", "model": "", "outcome": "client_error"}
    assert registry.get_sample_value("inference_request_latency_seconds_sum", labels) == 7


def test_a_refused_head_is_told_as_the_protocol_of_its_path_tells_errors(connection):
    connection.data_received(b"POST /v2/models/digits/infer?a HTTP/1.1\r\n" + b"A: b\r\n" * 258)

    assert json.loads(connection.transport.written.partition(b"\r\n\r\n")[2]) == {
        "error": "there are more than 256 headers"
    }


def test_as_many_headers_as_may_be_are_no_mistake(connection):
    connection.data_received(b"GET /livez HTTP/1.1\r\n" + b"A: b\r\n" * 257)

    assert connection.transport.written == b""
    assert len(connection.headers) == 256


def test_headers_that_are_too_slow_are_counted(connection, registry):
    connection.data_received(b"GET /livez HTTP/1.1\r\nHost:")
    connection.check(HEADER_TIMEOUT_S)

    assert connection.transport.written.startswith(b"HTTP/1.1 408 ")
    assert counted(registry, "slow_request") == ended(registry, "GET", "408", "client_error") == 1


def test_a_connection_too_many_is_counted_as_rejected(connection, registry):
    connection.connections.update(range(MAX_CONNECTIONS))
    connection.connection_made(Transport())

    assert connection.transport.written.startswith(b"HTTP/1.1 503 ")
    assert counted(registry, "too_many_connections") == ended(registry, "_other", "503", "rejected") == 1


def test_a_connection_that_is_closed_without_a_word_is_not_counted(connection, registry):
    connection.check(HEADER_TIMEOUT_S)

    assert connection.transport.is_closed
    assert registry.get_sample_value("inference_requests_received_total", {"method": "_other"}) is None


def test_headers_that_have_not_come_at_the_end_of_grace_are_counted_as_turned_away(connection, registry):
    connection.data_received(b"GET /livez HTTP/1.1\r\nHost:")

    assert not connection.end_grace()
    assert not connection.end_grace()  # nor twice
    assert connection.transport.written.count(b"HTTP/1.1 503 ") == 1
    assert b"\r\nretry-after: 1\r\n" in connection.transport.written
    assert counted(registry, "shutting_down") == ended(registry, "GET", "503", "rejected") == 1


def test_the_protocol_changes_once_for_all_large_bodies_in_a_row(registry):
    connection = connect(registry, **KEY)
    receive(connection, HEAD + BODY)
    direct = connection.transport.protocol
    for _ in range(3):
        receive(connection, HEAD + BODY)
        assert connection.transport.protocol is direct
    receive(connection, SMALL)

    assert connection.transport.protocol is connection
    assert connection.transport.written.count(b"HTTP/1.1 401 ") == 5


@pytest.mark.parametrize("times_before", [0, 4])
def test_who_was_refused_at_his_head_and_sends_no_body_is_not_waited_for(registry, times_before):
    connection = connect(registry, **KEY)
    for _ in range(times_before):
        receive(connection, HEAD + BODY)
    receive(connection, HEAD)

    assert connection.transport.written.count(b"HTTP/1.1 401 ") == times_before + 1
    connection.check(HEADER_TIMEOUT_S - 1)
    assert not connection.transport.is_closed
    connection.check(HEADER_TIMEOUT_S)
    assert connection.transport.is_closed


def test_who_is_refused_within_his_body_and_sends_no_more_is_not_waited_for(registry):
    connection = connect(registry, max_queue_mib=1, max_body_mib=1)
    connection.door.bodies.hold(1_000_000)  # others' bodies: there is no room for this one
    receive(connection, HEAD)
    receive(connection, BODY[:100_000])

    assert connection.transport.protocol is not connection
    assert connection.transport.written.startswith(b"HTTP/1.1 503 ")
    connection.check(HEADER_TIMEOUT_S)
    assert connection.transport.is_closed


@pytest.mark.parametrize("times_before", [0, 4])
def test_who_has_sent_a_refused_body_to_its_end_is_idle_from_then_on(registry, times_before):
    connection = connect(registry, **KEY)
    for _ in range(times_before):
        receive(connection, HEAD + BODY)
    receive(connection, HEAD)
    connection.loop.now_s = 2 * connection.timeout_keep_alive
    receive(connection, BODY)

    connection.check(3 * connection.timeout_keep_alive)
    assert not connection.transport.is_closed
    connection.check(3 * connection.timeout_keep_alive + 1)
    assert connection.transport.is_closed
