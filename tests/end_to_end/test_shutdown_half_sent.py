"""What has not been sent to its end when the grace time ends, or when a second signal comes: told so, not dropped."""

import json
import socket

from served import Served
from test_shutdown import in_flight, is_refused, until

LIMIT_S = 30.0
REQUEST = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 29\r\n\r\n"


def connect(served):
    return socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2])), timeout=LIMIT_S)


def answer_to(client):
    """Status and reason of what comes until the server closes."""
    head, _, body = b"".join(iter(lambda: client.recv(65_536), b"")).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["reason"]


def begin_a_body(client, served):
    client.sendall(REQUEST + b'{"instances"')
    until(lambda: in_flight(served) == 1)


def test_a_body_that_has_not_come_when_the_grace_time_ends_is_a_503():
    with Served("--grace-s", "1") as served, connect(served) as client:
        begin_a_body(client, served)
        served.signal()
        assert answer_to(client) == (503, "shutting_down")
        assert served.wait() == 1
    assert "Traceback" not in served.errors


def test_a_body_that_has_not_come_at_a_second_signal_is_a_503():
    with Served("--grace-s", "600") as served, connect(served) as client:
        begin_a_body(client, served)
        served.signal()
        until(lambda: is_refused(served.url))
        served.signal()
        assert answer_to(client) == (503, "shutting_down")
        assert served.wait() == 1
    assert "Traceback" not in served.errors


def test_headers_that_have_not_come_when_the_grace_time_ends_are_a_503_and_no_failure():
    with Served("--grace-s", "1") as served, connect(served) as client:
        client.sendall(REQUEST[:30])
        served.signal()
        assert answer_to(client) == (503, "shutting_down")
        assert served.wait() == 0
    assert "Traceback" not in served.errors
