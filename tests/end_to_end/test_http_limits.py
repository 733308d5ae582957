"""Raw sockets against `redserve serve`: what is too large, too slow, too many or no HTTP, and what is fine anyway."""

import json
import select
import socket
import time

import httpx2
import pytest
from served import Served

from engine.onnx_models import row_encoding
from redserve.server.http_limits import MAX_PIPELINED

BODY = b'{"instances": [[1, 2, 3, 4]]}'
REQUEST = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(BODY),
    BODY,
)
RIGHT = {"predictions": [[3, 5, 7, 9]]}
LIMIT_S = 20.0


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    limits = "--max-header-kib 4 --header-timeout-s 0.5 --body-timeout-s 0.5 --max-connections 16 --max-body-mib 1"
    with Served(str(row_encoding(tmp_path_factory.mktemp("model"))), *limits.split()) as server:
        yield server


@pytest.fixture
def port(served):
    """The server's port; afterwards a neighbour must still be served."""
    number = int(served.url.rpartition(":")[2])
    yield number
    with connect(number) as neighbour:
        neighbour.sendall(REQUEST)
        assert read_answers(neighbour, 1) == [(200, RIGHT)]
    assert served.process.poll() is None


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)


def read_answers(client, count=None):
    """`(status, body)` of each answer: of `count`, or of all until the server closes."""
    received, answers = b"", []
    while count is None or len(answers) < count:
        head, end, rest = received.partition(b"\r\n\r\n")
        if end:
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            length = int(lengths[0].partition(b":")[2])
            if len(rest) >= length:
                answers.append((int(head.split()[1]), json.loads(rest[:length])))
                received = rest[length:]
                continue
        try:
            chunk = client.recv(65_536)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            assert count is None, f"closed after {answers} and {received!r}"
            assert not received
            break
        received += chunk
    return answers


def reasons(answers):
    return [(status, body["error"]["reason"]) for status, body in answers]


@pytest.mark.parametrize(
    "headers",
    [b"A: b\r\n" * 2_000, b"A: " + b"x" * 5_000 + b"\r\n", b"A: " + b"x" * 20_000],
    ids=["many", "a long one", "one without an end"],
)
def test_too_many_header_bytes_are_a_431(port, headers):
    with connect(port) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: test\r\n" + headers)
        if headers.endswith(b"\r\n"):
            client.sendall(b"\r\n")
        assert reasons(read_answers(client)) == [(431, "headers_too_large")]


def test_header_bytes_are_counted_over_all_their_pieces(port):
    with connect(port) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nA: ")
        for _ in range(5):
            client.sendall(b"x" * 1_000)
            time.sleep(0.01)  # so that they arrive apart
        assert reasons(read_answers(client)) == [(431, "headers_too_large")]


def test_a_long_url_is_a_431(port):
    with connect(port) as client:
        client.sendall(b"GET /" + b"x" * 5_000 + b" HTTP/1.1\r\nHost: test\r\n\r\n")
        assert reasons(read_answers(client)) == [(431, "headers_too_large")]


def test_headers_that_never_end_are_a_408(port):
    with connect(port) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: te")
        assert reasons(read_answers(client)) == [(408, "slow_request")]


CHUNKED = REQUEST.partition(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begin", "drop"),
    [
        (b"GET /livez HTTP/1.1\r\nA: ", b"b"),
        (b"GET /livez HTTP/1.1\r\n", b"A: b\r\n"),
        (REQUEST.partition(b"Content-Length")[0] + b"Content-Length: 9999\r\n\r\n", b" " * 25),  # 500 bytes a second
        (CHUNKED, b"1\r\n \r\n"),
        (CHUNKED + b"5;", b"b"),
        (CHUNKED + b"0\r\n", b"A: b\r\n"),
    ],
    ids=["a header", "headers", "a body", "chunks", "an extension of a chunk", "trailers"],
)
def test_who_drips_is_answered_408_however_long_he_would_go_on(port, begin, drop):
    with connect(port) as client:
        client.sendall(begin)
        deadline_s = time.monotonic() + LIMIT_S
        while not select.select([client], [], [], 0.05)[0]:
            assert time.monotonic() < deadline_s, "it drips for ever"
            client.sendall(drop)
        assert reasons(read_answers(client)) == [(408, "slow_request")]


def test_a_connection_that_says_nothing_is_closed_without_a_word(port):
    with connect(port) as client:
        assert read_answers(client) == []


def test_a_body_that_never_ends_is_a_408_and_counted_as_such(served, port):
    before = slow_requests(served)
    with connect(port) as client:
        client.sendall(REQUEST[:-5])
        assert reasons(read_answers(client)) == [(408, "slow_request")]
    assert slow_requests(served) == before + 1


def slow_requests(served):
    series = 'inference_errors_total{route="/predict",model="row_encoding",reason="slow_request"} '
    lines = httpx2.get(f"{served.url}/metrics").text.splitlines()
    return sum(float(line.removeprefix(series)) for line in lines if line.startswith(series))


def test_a_slow_body_that_keeps_coming_is_taken(port):
    filler = b" " * 2_000
    body = BODY[:-1] + filler * 4 + BODY[-1:]
    with connect(port) as client:
        client.sendall(REQUEST.partition(b"Content-Length")[0] + b"Content-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 2_000):
            client.sendall(body[start : start + 2_000])
            time.sleep(0.2)  # five times as long as the timeout for a small body
        assert read_answers(client, 1) == [(200, RIGHT)]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"NONSENSE\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"POST /predict HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nContent-Length: " + b"9" * 400 + b"\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["TLS", "no request line", "no header", "two lengths", "negative", "endless", "two framings"],
)
def test_what_is_no_http_is_a_400(port, request_bytes):
    with connect(port) as client:
        client.sendall(request_bytes)
        assert reasons(read_answers(client)) == [(400, "bad_request")]


def test_what_is_no_http_fills_no_log():
    with Served() as served:
        for _ in range(3):
            with connect(int(served.url.rpartition(":")[2])) as client:
                client.sendall(b"NONSENSE\r\n\r\n")
                assert reasons(read_answers(client)) == [(400, "bad_request")]
        served.signal()
        assert served.wait() == 0
    assert served.errors.count("\n") == 1  # of the model


def test_a_body_that_breaks_off_in_its_framing_is_a_400_and_counted_as_such(served, port):
    with connect(port) as client:
        client.sendall(
            b"POST /predict HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n"
        )
        assert reasons(read_answers(client)) == [(400, "bad_request")]
    labels = 'route="/predict",method="POST",model="row_encoding",code="400",outcome="client_error"'
    assert f"inference_requests_total{{{labels}}} 1" in httpx2.get(f"{served.url}/metrics").text


def test_a_declared_body_over_the_limit_is_a_413_before_it_is_sent(port):
    with connect(port) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Length: 2000000\r\n\r\n")
        assert reasons(read_answers(client, 1)) == [(413, "too_large")]


def test_a_client_that_sends_its_whole_body_all_the_same_gets_its_413_and_may_go_on(port):
    with connect(port) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Length: 2000000\r\n\r\n")
        client.sendall(b" " * 2_000_000)
        client.sendall(REQUEST)
        answers = read_answers(client, 2)
    assert [status for status, _ in answers] == [413, 200]


def test_a_chunked_body_over_the_limit_is_a_413_while_it_arrives_and_is_cut_off_in_the_end(port):
    with connect(port) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.sendall((b"10000\r\n" + b" " * 65_536 + b"\r\n") * 20)
        assert reasons(read_answers(client, 1)) == [(413, "too_large")]
        with pytest.raises(ConnectionError):
            send_again_and_again(client, b"10000\r\n" + b" " * 65_536 + b"\r\n", times=4_000)


def test_a_refused_body_that_drips_on_is_cut_off(port):
    with connect(port) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Length: 2000000\r\n\r\n ")
        assert reasons(read_answers(client, 1)) == [(413, "too_large")]
        client.sendall(b" ")
        with pytest.raises(ConnectionError):
            send_again_and_again(client, b" ", times=100, pause_s=0.05)


def send_again_and_again(client, piece, *, times, pause_s=0.0):
    for _ in range(times):
        client.sendall(piece)
        time.sleep(pause_s)


def test_one_connection_too_many_is_a_503_and_the_others_stay(port):
    clients = [connect(port) for _ in range(16)]
    try:
        with connect(port) as extra:
            answer = b"".join(iter(lambda: extra.recv(65_536), b""))
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 1\r\n" in answer
        assert b'"reason":"too_many_connections"' in answer
        clients[0].sendall(REQUEST)
        assert read_answers(clients[0], 1) == [(200, RIGHT)]
    finally:
        for client in clients:
            client.close()
    deadline_s = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline_s:  # until the server has noticed
        with connect(port) as client:
            client.sendall(REQUEST)
            if read_answers(client, 1) == [(200, RIGHT)]:
                return
        time.sleep(0.05)
    pytest.fail("the connections were never given back")


def test_a_request_in_single_bytes_is_a_request(port):
    with connect(port) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in REQUEST:
            client.sendall(bytes([byte]))
        assert read_answers(client, 1) == [(200, RIGHT)]


def test_pipelined_requests_are_answered_in_order(port):
    wrong = REQUEST.replace(b"[1, 2, 3, 4]", b"[1, 2, 3   ]")
    with connect(port) as client:
        client.sendall(REQUEST + wrong + REQUEST)
        assert [status for status, _ in read_answers(client, 3)] == [200, 400, 200]


def test_no_more_requests_than_the_bound_wait_in_one_connection(port):
    request = b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n"
    with connect(port) as client:
        client.sendall(request * (MAX_PIPELINED + 1))
        assert [status for status, _ in read_answers(client, MAX_PIPELINED + 1)] == [200] * (MAX_PIPELINED + 1)
        client.sendall(request * (MAX_PIPELINED + 2))
        assert [status for status, _ in read_answers(client)] == [200] * (MAX_PIPELINED + 1)  # then the end


def test_a_bad_request_behind_a_good_one_does_not_overtake_its_answer(port):
    with connect(port) as client:
        client.sendall(REQUEST + b"NONSENSE\r\n\r\n")
        assert read_answers(client) in ([(200, RIGHT)], [(200, RIGHT), (400, {"error": ANY_400})])


ANY_400 = {"reason": "bad_request", "message": "Invalid HTTP request received."}


def test_the_end_of_a_large_body_is_not_taken_for_headers(port):
    body = BODY + b" " * 500_000
    first = REQUEST.partition(b"Content-Length")[0] + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    with connect(port) as client:
        for _ in range(5):
            client.sendall(first + REQUEST[:40])
            client.sendall(REQUEST[40:])
            assert read_answers(client, 2) == [(200, RIGHT)] * 2


def test_a_request_that_has_begun_is_answered_after_sigterm(tmp_path):
    with Served(str(row_encoding(tmp_path))) as server:
        port = int(server.url.rpartition(":")[2])
        with connect(port) as begun, connect(port) as idle:
            idle.sendall(REQUEST)
            assert read_answers(idle, 1) == [(200, RIGHT)]
            begun.sendall(REQUEST[:30])
            time.sleep(0.1)  # for the server to have read it
            server.signal()
            assert read_answers(idle) == []
            begun.sendall(REQUEST[30:])
            assert read_answers(begun) == [(200, RIGHT)]
        assert server.wait() == 0
