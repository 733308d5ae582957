"""Bodies that are received straight into their memory, past the parser: what holds for others holds for them.

Each exchange goes to both doors, and the one that parses everything says what is right.
"""

import gzip
import io
import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from served import Served
from test_both_doors import GOOD, LIMIT_S, ROW, V2, Pair, exchange, request, same
from test_shutdown import in_flight, until
from test_shutdown_half_sent import answer_to, connect

from redserve.server.direct_body import DirectBody
from redserve.server.known_heads import MAX_KNOWN_BYTES

ROWS = np.tile(np.array(ROW, np.float32), (1_000, 1)) * np.linspace(0, 1, 1_000, dtype=np.float32)[:, None]
DATA = ROWS.tobytes()  # 256 kB
HEAD = json.dumps(
    {
        "inputs": [
            {"name": "pixels", "shape": [1_000, 64], "datatype": "FP32", "parameters": {"binary_data_size": len(DATA)}}
        ]
    }
).encode()
JSON = json.dumps({"instances": ROWS[:700].round(4).tolist()}).encode()
V2_JSON = json.dumps(
    {"inputs": [{"name": "pixels", "shape": [700, 64], "datatype": "FP32", "data": ROWS[:700].round(4).tolist()}]}
).encode()


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, ROWS)
    return file.getvalue()


def v2(*, close: bool = True, length: str | None = None) -> bytes:
    return request(V2, HEAD + DATA, f"Inference-Header-Content-Length: {len(HEAD)}", close=close, length=length)


CASES = {
    "binary tensors": (v2(close=False), 200),
    "raw binary of many rows": (request(V2, DATA, "Inference-Header-Content-Length: 0", close=False), 400),
    "bare rows": (request(body=DATA, content_type="application/octet-stream", close=False), 200),
    "an array file": (request(body=npy(), content_type="application/x-npy", close=False), 200),
    "no array file": (request(body=DATA, content_type="application/x-npy", close=False), 400),
    "JSON": (request(body=JSON, close=False), 200),
    "broken JSON": (request(body=JSON[:-1], close=False), 400),
    "JSON that is no text": (request(body=JSON[:-1] + b"\xff", close=False), 400),
    "v2 in JSON": (request(V2, V2_JSON, close=False), 200),
    "v2 in JSON with a NaN": (request(V2, V2_JSON.replace(b"0.0", b"NaN", 1), close=False), 200),
    "compressed": (request("/predict", gzip.compress(JSON, 0), "Content-Encoding: gzip", close=False), 200),
    "compressed, not to the end": (
        request("/predict", gzip.compress(JSON, 0)[:-9], "Content-Encoding: gzip", close=False),
        400,
    ),
    "encoded as nothing": (request("/predict", JSON, "Content-Encoding: identity", close=False), 200),
    "an empty rest": (request(body=b" " * 300_000, close=False), 400),
}


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(stack)


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what came past the parser."""
    sizes: list[int] = []
    kept = DirectBody.buffer_updated

    def buffer_updated(self: DirectBody, nbytes: int) -> None:
        if self.request is not None:
            sizes.append(nbytes)
        kept(self, nbytes)

    monkeypatch.setattr(DirectBody, "buffer_updated", buffer_updated)
    return sizes


def in_two(pair: Pair, sent: bytes, *, first_bytes: int | None = None) -> bytes:
    """What both answer to `sent`, of which the rest comes when the head has been read."""
    cut = sent.index(b"\r\n\r\n") + 4 if first_bytes is None else first_bytes
    answers = []
    for name, port in pair.ports.items():
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as connection:
            connection.sendall(sent[:cut])
            until(lambda name=name: pair.registries[name].get_sample_value("inference_requests_in_flight") == 1)
            connection.sendall(sent[cut:])
            answers.append(same(b"".join(iter(lambda connection=connection: connection.recv(65_536), b""))))
    assert answers[0] == answers[1]
    return answers[0]


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", answer)]


@pytest.mark.parametrize("case", CASES)
def test_both_doors_give_the_same_answer(pair: Pair, direct: list[int], case: str):
    sent, status = CASES[case]

    answer = in_two(pair, sent + request())

    assert statuses(answer) == [status, 200]
    assert sum(direct) == len(sent) - sent.index(b"\r\n\r\n") - 4


def test_the_last_of_its_connection_is_parsed(pair: Pair, direct: list[int]):
    assert statuses(in_two(pair, v2())) == [200]
    assert not direct


def test_it_does_not_matter_where_the_pieces_are_cut(pair: Pair, direct: list[int]):
    sent = v2(close=False) + request()
    whole = pair.exchange(sent)
    head_end, body_end = sent.index(b"\r\n\r\n") + 4, len(v2(close=False))
    port = pair.ports["fast"]

    assert statuses(whole) == [200, 200]
    for edge in (head_end, head_end + len(HEAD), body_end):
        for cut in range(edge - 6, edge + 7):
            assert exchange(port, sent[:cut], sent[cut:]) == whole
            assert exchange(port, sent[:1_000], sent[1_000:cut], sent[max(cut, 1_000) :]) == whole
    for cut in range(head_end, head_end + 6):
        assert in_two(pair, sent, first_bytes=cut) == whole
    for size_bytes in (997, 65_537, 130_000):
        assert exchange(port, *[sent[start : start + size_bytes] for start in range(0, len(sent), size_bytes)]) == whole
    assert direct


def test_one_large_body_may_follow_another_wherever_they_are_cut(pair: Pair, direct: list[int]):
    one = v2(close=False)
    sent = one + one + request(close=False) + one + request()
    whole = pair.exchange(sent)
    port, head_end = pair.ports["fast"], one.index(b"\r\n\r\n") + 4

    assert statuses(whole) == [200] * 5
    for behind in (0, len(one)):
        for edge in (behind, behind + head_end, behind + head_end + len(HEAD), behind + MAX_KNOWN_BYTES):
            for cut in range(max(edge - 3, 1), edge + 4):
                assert exchange(port, sent[:cut], sent[cut:]) == whole
    assert direct


def test_requests_behind_a_large_body_are_answered_in_their_order(pair: Pair, direct: list[int]):
    page = request("/livez", b"", method="GET", content_type=None, close=False)

    answer = in_two(pair, v2(close=False) + request(close=False) + v2(close=False) + page + request())

    assert [len(found) > 10_000 for found in answer.split(b"HTTP/1.1 200 ")[1:]] == [True, False, True, False, False]
    assert direct


def test_what_stands_behind_the_length_of_a_body_is_no_part_of_it(pair: Pair, direct: list[int]):
    sent = request(body=DATA + b"abc", content_type="application/octet-stream", close=False, length=str(len(DATA)))
    with socket.create_connection(("127.0.0.1", pair.ports["fast"]), timeout=LIMIT_S) as connection:
        connection.sendall(sent[:1_000])
        until(lambda: pair.registries["fast"].get_sample_value("inference_requests_in_flight") == 1)
        connection.sendall(sent[1_000:-3])
        until(lambda: pair.registries["fast"].get_sample_value("inference_requests_in_flight") == 0)
        connection.sendall(sent[-3:] + b"\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))

    assert statuses(answer) == [200, 400]
    assert direct


@pytest.mark.parametrize("is_half_closed", [True, False])
def test_who_leaves_within_a_large_body_is_counted_as_gone(pair: Pair, direct: list[int], is_half_closed: bool):
    before = gone(pair)
    for name, port in pair.ports.items():
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as connection:
            connection.sendall(v2(close=False)[:1_000])
            until(lambda name=name: pair.registries[name].get_sample_value("inference_requests_in_flight") == 1)
            connection.sendall(DATA[:100_000])
            if is_half_closed:
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(1) == b""

    until(lambda: gone(pair) == {name: count + 1 for name, count in before.items()})
    assert statuses(pair.exchange(request())) == [200]
    assert direct


def gone(pair: Pair) -> dict[str, float]:
    return {
        name: sum(value for series, value in numbers.items() if 'reason="client_disconnected"' in series)
        for name, numbers in pair.numbers().items()
    }


def test_a_large_body_that_stops_is_a_408():
    with Served("--body-timeout-s", "0.5") as served, connect(served) as client:
        client.sendall(request(body=JSON, close=False)[:500])  # 1,000 bytes give a second more
        assert answer_to(client) == (408, "slow_request")


def test_a_large_body_that_has_not_come_when_the_grace_time_ends_is_a_503():
    with Served("--grace-s", "1") as served, connect(served) as client:
        client.sendall(request(body=JSON, close=False)[:-1])
        until(lambda: in_flight(served) == 1)
        served.signal()
        assert answer_to(client) == (503, "shutting_down")
        assert served.wait() == 1
    assert "Traceback" not in served.errors


def test_bodies_that_are_too_much_together_are_a_503_and_the_connection_goes_on():
    with Served("--max-queue-mib", "1", "--max-body-mib", "1") as served, connect(served) as waiting:
        waiting.sendall(request(body=b" " * 900_000, close=False)[:-1])
        until(lambda: in_flight(served) == 1)
        with connect(served) as client:
            client.sendall(request(body=b" " * 900_000, close=False) + request(body=GOOD))
            answer = b"".join(iter(lambda: client.recv(65_536), b""))
            assert statuses(answer) == [503, 200]
