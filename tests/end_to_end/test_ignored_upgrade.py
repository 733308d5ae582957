"""A client that asks for another protocol, as Java's does for `h2c`, is answered in this one, body and all."""

import asyncio
import json
import re

import pytest
from puppet_server import LIMIT_S, PuppetServer, request_of

HEAD = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nConnection: Upgrade\r\n"
BODY = b'{"instances": [[3, 4]]}'
SIZED = b"Content-Length: 23\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
IN_CHUNKS = b"5\r\n" + BODY[:5] + b"\r\n12\r\n" + BODY[5:] + b"\r\n0\r\n\r\n"
NEXT = request_of([[5, 6]])
FIRST_RIGHT, NEXT_RIGHT = (200, {"predictions": [[6.0, 8.0]]}), (200, {"predictions": [[10.0, 12.0]]})


@pytest.fixture(scope="module")
def server():
    with PuppetServer(body_timeout_s=2) as server:
        yield server


async def answers_to(port, pieces, count):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = []
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.02)  # so that they arrive apart
        async with asyncio.timeout(LIMIT_S):
            for _ in range(count):
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(re.search(rb"content-length: (\d+)", head)[1])
                answers.append((int(head.split()[1]), json.loads(await reader.readexactly(length))))
    finally:
        writer.close()
    return answers


@pytest.mark.parametrize("wish", [b"h2c", b"websocket", b"TLS/1.3"], ids=bytes.decode)
@pytest.mark.parametrize(
    "pieces",
    [
        [SIZED + BODY + NEXT],
        [SIZED, BODY, NEXT],
        [SIZED + BODY[:9], BODY[9:] + NEXT],
        [CHUNKED + IN_CHUNKS + NEXT],
        [CHUNKED, IN_CHUNKS[:20], IN_CHUNKS[20:], NEXT],
    ],
    ids=["at once", "body apart", "body in two", "chunks at once", "chunks apart"],
)
def test_a_wish_for_another_protocol_costs_neither_the_body_nor_the_next_request(server, wish, pieces):
    first, *others = pieces
    wished = [HEAD + b"Upgrade: " + wish + b"\r\n" + first, *others]

    assert asyncio.run(answers_to(server.port, wished, 2)) == [FIRST_RIGHT, NEXT_RIGHT]


def test_each_of_many_requests_on_a_connection_may_wish(server):
    wishing = HEAD + b"Upgrade: h2c\r\n" + SIZED + BODY

    assert asyncio.run(answers_to(server.port, [wishing * 3, wishing], 4)) == [FIRST_RIGHT] * 4


def test_a_wish_without_a_body_is_a_plain_request(server):
    wishing = HEAD.replace(b"POST", b"GET") + b"Upgrade: websocket\r\n\r\n"

    (first, second) = asyncio.run(answers_to(server.port, [wishing + NEXT], 2))

    assert first[0] == 405
    assert second == NEXT_RIGHT


def test_a_broken_body_behind_a_wish_is_a_400(server):
    wishing = HEAD + b"Upgrade: h2c\r\n" + CHUNKED + b"-5\r\n"

    ((status, answer),) = asyncio.run(answers_to(server.port, [wishing], 1))

    assert (status, answer["error"]["reason"]) == (400, "bad_request")
