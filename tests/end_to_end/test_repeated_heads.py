"""Requests whose head was parsed before: what the parser says of it goes for them, wherever they are cut.

Each exchange goes to both doors, and the one that parses everything says what is right.
"""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from test_both_doors import GOOD, KEY, LIMIT_S, ROW, Pair, request, same
from test_large_bodies import DATA, statuses, v2

from redserve.server.http_protocol import HttpProtocol
from redserve.server.known_heads import MAX_KNOWN_BYTES, MAX_UNKNOWN_HEADS

PLAIN = request(close=False)
BARE_ROWS = request(body=DATA, content_type="application/octet-stream", close=False)
MISTAKE = request(body=GOOD.replace(b"[[", b"[{"), close=False)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(stack)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(stack, inference_keys=KEY)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One for each head that the fast server has parsed; the other heads were known."""
    seen: list[None] = []
    kept = HttpProtocol.on_message_begin

    def on_message_begin(self: HttpProtocol) -> None:
        if self.door.is_open:
            seen.append(None)
        kept(self)

    monkeypatch.setattr(HttpProtocol, "on_message_begin", on_message_begin)
    return seen


def one_by_one(pair: Pair, *requests: bytes | tuple[bytes, ...]) -> bytes:
    """What both answer to requests of which each waits for the answer to the one before; some come in pieces."""
    answers = []
    for port in pair.ports.values():
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            received = b""
            for sent in requests:
                for piece in (sent,) if isinstance(sent, bytes) else sent:
                    connection.sendall(piece)
                received += read_answer(connection)
        answers.append(same(received))
    assert answers[0] == answers[1]
    return answers[0]


def read_answer(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        received += (chunk := connection.recv(65_536))
        assert chunk, received
    head, _, body = received.partition(b"\r\n\r\n")
    (length,) = re.findall(rb"(?i)content-length: (\d+)", head)
    while len(body) < int(length):
        body += (chunk := connection.recv(65_536))
        assert chunk, received
    return head + b"\r\n\r\n" + body


def test_the_same_request_is_answered_the_same_each_time(pair: Pair, parsed: list[None]):
    answer = one_by_one(pair, *[PLAIN] * 6, MISTAKE, PLAIN)

    assert statuses(answer) == [200] * 6 + [400, 200]
    assert len(parsed) == 3


def test_a_known_head_may_be_cut_anywhere(pair: Pair, parsed: list[None]):
    whole = one_by_one(pair, *[PLAIN] * 5)

    for cut in range(1, len(PLAIN)):
        assert one_by_one(pair, PLAIN, PLAIN, PLAIN, (PLAIN[:cut], PLAIN[cut:]), PLAIN) == whole
    assert len(parsed) < 5 * len(PLAIN) - 100


@pytest.mark.parametrize(
    "odd",
    [
        b"\r\n\r\n" + PLAIN,
        b"\r\n" + PLAIN,
        PLAIN.replace(b"Host: test", b"Host:  test "),
        request(body=json.dumps({"instances": [ROW] * 3}).encode(), close=False),
        request("/predict", GOOD, "X-Request-Timeout-Ms: 5000", close=False),
        request("/predict/nobody", close=False),
        request("/livez", b"", method="GET", content_type=None, close=False),
        b"POST /predict HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
        % (len(GOOD), GOOD),
    ],
)
def test_other_heads_are_not_taken_for_known_ones(pair: Pair, odd: bytes):
    answer = one_by_one(pair, *[PLAIN] * 3, odd, odd, odd, PLAIN, odd, PLAIN)

    assert statuses(answer).count(200) >= 5


def test_requests_in_one_piece_behind_a_known_head_are_answered_in_their_order(pair: Pair):
    with ExitStack() as stack:
        answers = []
        for port in pair.ports.values():
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S))
            for _ in range(3):
                connection.sendall(PLAIN)
                read_answer(connection)
            connection.sendall(PLAIN + MISTAKE + PLAIN + request())
            answers.append(same(b"".join(iter(lambda connection=connection: connection.recv(65_536), b""))))

    assert answers[0] == answers[1]
    assert statuses(answers[0]) == [200, 400, 200, 200]


def test_a_known_head_within_a_header_of_the_next_request_is_part_of_that_header(pair: Pair):
    begun = b"POST /predict HTTP/1.1\r\nHost: test\r\nX-Note: "  # its head goes on when the request before is answered
    answers = []
    for port in pair.ports.values():
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as connection:
            for sent in (PLAIN, PLAIN, PLAIN, PLAIN + begun):
                connection.sendall(sent)
                read_answer(connection)
            connection.sendall(PLAIN)
            answers.append(same(b"".join(iter(lambda connection=connection: connection.recv(65_536), b""))))

    assert answers[0] == answers[1]
    assert statuses(answers[0]) == [400]  # two Host headers


def test_a_large_body_behind_a_known_head_is_taken_whole(pair: Pair, parsed: list[None]):
    head_end = BARE_ROWS.index(b"\r\n\r\n") + 4
    cuts = (1, head_end - 1, head_end, head_end + 1, MAX_KNOWN_BYTES, 70_000, len(BARE_ROWS) - 1)
    pieces = [(BARE_ROWS[:cut], BARE_ROWS[cut:]) for cut in cuts]

    answer = one_by_one(pair, BARE_ROWS, BARE_ROWS, BARE_ROWS, *pieces, PLAIN, BARE_ROWS, v2())

    assert statuses(answer) == [200] * 13
    assert len(parsed) < 10


def test_who_may_not_is_told_so_each_time_and_his_body_passed_over(guarded: Pair, parsed: list[None]):
    answer = one_by_one(guarded, *[BARE_ROWS] * 5, *[PLAIN] * 5, BARE_ROWS)

    assert statuses(answer) == [401] * 11
    assert len(parsed) < 11


def test_a_head_with_a_key_in_it_is_never_known(guarded: Pair, parsed: list[None]):
    answer = one_by_one(guarded, *[request("/predict", GOOD, f"X-API-Key: {KEY}", close=False)] * 5)

    assert statuses(answer) == [200] * 5
    assert len(parsed) == 5


def test_a_connection_whose_heads_differ_each_time_is_looked_up_no_more(pair: Pair, parsed: list[None]):
    many = MAX_UNKNOWN_HEADS + 6
    numbered = [request("/predict", GOOD, f"X-Request-Id: {number}", close=False) for number in range(many)]

    assert statuses(one_by_one(pair, *numbered, *[PLAIN] * 5)) == [200] * (many + 5)
    assert len(parsed) == many + 5
