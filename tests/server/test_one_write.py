"""One write under uvicorn: the same bytes, and the same end of a request, as by `send`, on uvicorn's own objects."""

import asyncio
import logging

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from drive_asgi import scope_of
from redserve.errors import QueueFull, UnknownModel
from redserve.server.one_write import OneWrite
from redserve.server.reply import Reply, error_reply

OK = Reply(200, b"content-type: application/json\r\ncontent-length: 2\r\n", b"{}", "digits")
REPLIES = [OK, error_reply(UnknownModel("nobody")), error_reply(QueueFull(waiting=3, limit=3, unit="rows"))]
DEFAULTS = [(b"date", b"Sat, 28 Nov 2026 20:00:00 GMT"), (b"server", b"uvicorn")]


class Transport:
    """Keeps what is written."""

    def __init__(self):
        self.writes = []
        self.is_closed = False

    def write(self, data):
        self.writes.append(data)

    def close(self):
        self.is_closed = True

    def is_closing(self):
        return self.is_closed


class Exchange:
    """One request on uvicorn's side."""

    def __init__(self, *, keep_alive=True, access_log=False):
        self.transport = Transport()
        self.responses = 0
        self.flow = FlowControl(self.transport)
        self.event = asyncio.Event()
        self.cycle = RequestResponseCycle(
            scope=scope_of("/predict", "POST"),
            transport=self.transport,
            flow=self.flow,
            logger=logging.getLogger("uvicorn.error"),
            access_logger=logging.getLogger("uvicorn.access"),
            access_log=access_log,
            default_headers=DEFAULTS,
            message_event=self.event,
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=self.count,
        )

    def count(self):
        self.responses += 1

    def end(self):
        """All that uvicorn looks at afterwards."""
        cycle = self.cycle
        flags = cycle.response_started, cycle.response_complete, cycle.keep_alive
        return b"".join(self.transport.writes), self.transport.is_closed, self.responses, self.event.is_set(), flags


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("reply", REPLIES, ids=["ok", "unknown model", "queue full"])
async def test_one_write_is_what_two_messages_are(reply, keep_alive):
    by_messages, at_once = Exchange(keep_alive=keep_alive), Exchange(keep_alive=keep_alive)
    one_write = OneWrite()

    await by_messages.cycle.send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
    await by_messages.cycle.send({"type": "http.response.body", "body": reply.body})
    one_write.write(one_write.cycle_of(at_once.cycle.send, reply), reply)

    assert at_once.end() == by_messages.end()
    assert len(at_once.transport.writes) == 1
    assert await at_once.cycle.receive() == {"type": "http.disconnect"}


async def test_an_application_that_returns_after_one_write_has_answered(caplog):
    exchange, one_write = Exchange(), OneWrite()

    async def app(scope, receive, send):
        one_write.write(one_write.cycle_of(send, OK), OK)

    await exchange.cycle.run_asgi(app)

    assert len(exchange.transport.writes) == 1
    assert caplog.records == []


async def test_the_date_is_the_one_of_the_answer():
    first, second, one_write = Exchange(), Exchange(), OneWrite()
    second.cycle.default_headers = [(b"date", b"Sat, 28 Nov 2026 20:00:01 GMT")]
    for exchange in (first, second):
        one_write.write(exchange.cycle, OK)

    assert b"20:00:00" in first.transport.writes[0]
    assert b"20:00:01" in second.transport.writes[0]


async def test_messages_are_sent_where_one_write_would_pass_something_by():
    one_write = OneWrite()
    wrapped, logged, slow, gone, lost, begun = (Exchange(access_log=number == 1) for number in range(6))
    slow.flow.pause_writing()
    gone.cycle.disconnected = True
    lost.transport.close()
    await begun.cycle.send({"type": "http.response.start", "status": 200, "headers": OK.headers})

    async def send(message):
        await wrapped.cycle.send(message)

    assert one_write.cycle_of(send, OK) is None
    for exchange in (logged, slow, gone, lost, begun):
        assert one_write.cycle_of(exchange.cycle.send, OK) is None
    assert one_write.cycle_of(Exchange().cycle.send, Reply(200, b"content-length: 65537\r\n", b"x" * 65_537)) is None
