import asyncio
import itertools
import socket
from collections.abc import Callable
from dataclasses import replace
from time import monotonic, sleep

import pytest
import uvloop
from puppet_http import OK, Asked, PuppetHttp

from redserve.bench.arrivals import Burst, Constant, Replay
from redserve.bench.connection import Departure
from redserve.bench.load import Load
from redserve.bench.sender import Sender


class Book:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.answers: list[tuple[Departure, float, int, bytes]] = []
        self.failures: list[tuple[Departure, str, str]] = []
        self.on_answer: Callable[[], None] = lambda: None

    def answered(self, departure: Departure, *, ended_s: float, status: int, body: bytes) -> None:
        self.answers.append((replace(departure), ended_s, status, body))
        self.on_answer()

    def unanswered(self, departure: Departure, *, ended_s: float, reason: str, detail: str) -> None:
        self.failures.append((replace(departure), reason, detail))
        self.on_answer()


def post(body: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\nHost: puppet\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def send(
    on_request: Callable[[Asked], None], *, stop_after: int | None = None, **load: object
) -> tuple[Book, PuppetHttp, Sender]:
    """Drive a sender against a puppet, on the loop that is used for real."""
    book, puppet = Book(), PuppetHttp(on_request)

    async def drive() -> Sender:
        async with puppet:
            settings = {"requests": [post()], "duration_s": 0.2, "connections": 1} | load
            sender = Sender(Load(host="127.0.0.1", port=puppet.port, **settings), book)  # type: ignore[arg-type]
            if stop_after is not None:

                def stop_when_enough() -> None:
                    if len(book.answers) + len(book.failures) >= stop_after:
                        sender.stop("enough")

                book.on_answer = stop_when_enough
            await sender.connect()
            await sender.run()
            await sender.close()
            return sender

    return book, puppet, uvloop.run(drive())


def test_a_closed_loop_asks_again_on_each_connection_when_it_is_answered():
    held: list[Asked] = []

    def answer_in_threes(asked: Asked) -> None:
        held.append(asked)
        assert len(held) <= 3
        if len(held) == 3:
            for each in held[:]:
                each.answer()
            held.clear()

    book, puppet, _ = send(answer_in_threes, connections=3, stop_after=30, timeout_s=0.2)

    assert puppet.connections == 3
    assert {status for _, _, status, _ in book.answers} == {200}
    assert {departure.number for departure, *_ in book.answers[:3]} == {0, 1, 2}


def test_a_closed_loop_looks_how_late_it_gets_to_things():
    _, _, sender = send(lambda asked: asked.answer(), duration_s=0.1)

    assert sender.lateness_s
    assert min(sender.lateness_s) >= 0


def test_an_open_loop_sends_on_whatever_becomes_of_what_it_sent():
    held: list[Asked] = []

    def answer_all_when_ten_have_come(asked: Asked) -> None:
        held.append(asked)
        if len(held) == 10:
            for each in held:
                each.answer()

    book, puppet, _ = send(answer_all_when_ten_have_come, arrivals=Constant(100), duration_s=0.1)

    assert len(book.answers) == 10  # a closed loop on one connection would wait for the first answer for ever
    assert puppet.connections == 10


def test_each_request_of_an_open_loop_keeps_its_planned_time_and_counts_from_it():
    plan = [0.0, 0.004, 0.004, 0.013]
    book, _, _ = send(lambda asked: asked.answer(), arrivals=Replay(plan))

    assert sorted(departure.planned_s for departure, *_ in book.answers) == plan
    for departure, ended_s, _, _ in book.answers:
        assert departure.planned_s <= departure.taken_s <= departure.sent_s <= ended_s


def test_requests_beyond_the_most_connections_wait_for_one_in_the_order_they_were_planned():
    held: list[Asked] = []

    def answer_the_second_of_two(asked: Asked) -> None:
        held.append(asked)
        assert len(held) <= 2
        if len(held) == 2:
            held.pop().answer()

    book, puppet, sender = send(
        answer_the_second_of_two, arrivals=Burst(100, 8), duration_s=0.05, max_connections=2, timeout_s=0.2
    )

    assert puppet.connections == 2
    sent = sorted((departure.sent_s, departure.number) for departure, *_ in book.answers)
    assert [number for _, number in sent] == sorted(number for _, number in sent)
    assert len(book.answers) == 7
    assert [reason for _, reason, _ in book.failures] == ["timeout"]
    assert sender.unsent == 0


def test_the_bodies_are_sent_in_turn():
    bodies = [b"a", b"b", b"c"]
    _, puppet, _ = send(lambda asked: asked.answer(), requests=[post(body) for body in bodies], stop_after=7)

    assert puppet.bodies == list(itertools.islice(itertools.cycle(bodies), len(puppet.bodies)))
    assert len(puppet.bodies) >= 7


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", b"abc"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK, b"ok"),
    ],
    ids=["chunked", "without a body", "after early hints"],
)
def test_answers_of_every_framing_are_understood(raw: bytes, body: bytes):
    book, _, _ = send(lambda asked: asked.answer(raw), stop_after=3)

    assert [answer for *_, answer in book.answers[:3]] == [body] * 3
    assert not book.failures


def test_an_answer_may_come_in_pieces():
    def answer_in_pieces(asked: Asked) -> None:
        loop = asyncio.get_running_loop()
        asked.answer(OK[:9])
        loop.call_soon(loop.call_soon, asked.answer, OK[9:])

    book, _, _ = send(answer_in_pieces, stop_after=3)

    assert {(status, body) for _, _, status, body in book.answers} == {(200, b"ok")}


def test_a_connection_that_the_server_closes_after_its_answer_is_replaced():
    def answer_and_close(asked: Asked) -> None:
        asked.answer(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        asked.hang_up()

    book, puppet, _ = send(answer_and_close, stop_after=4)

    assert not book.failures
    assert puppet.connections >= 4


def test_a_connection_that_breaks_before_its_answer_is_a_failed_request():
    def break_the_second(asked: Asked, count: "itertools.count[int]" = itertools.count()) -> None:  # noqa: B008
        if next(count) == 1:
            asked.hang_up()
        else:
            asked.answer()

    book, puppet, _ = send(break_the_second, stop_after=5)

    assert [(departure.number, reason) for departure, reason, _ in book.failures] == [(1, "connection_lost")]
    assert puppet.connections == 2


def test_what_is_no_http_is_said_to_be_none():
    book, _, _ = send(lambda asked: asked.answer(b"SSH-2.0-OpenSSH_9.2\r\n"), stop_after=1)

    _, reason, detail = book.failures[0]
    assert reason == "not_http"
    assert "SSH-2.0" in detail


def test_a_request_without_an_answer_fails_after_its_timeout_and_the_run_ends():
    book, _, _ = send(lambda asked: None, timeout_s=0.05, duration_s=0.01)

    assert [reason for _, reason, _ in book.failures] == ["timeout"]


def test_a_run_that_is_stopped_does_not_wait_for_a_server_that_does_not_answer():
    def answer_once(asked: Asked) -> None:
        if len(asked._puppet.bodies) == 1:
            asked.answer()

    book, _, _ = send(answer_once, connections=2, stop_after=1, duration_s=60)

    assert {reason for _, reason, _ in book.failures} == {"abandoned"}


def test_a_server_that_goes_away_is_a_refusal_for_each_request_after_that():
    def die(asked: Asked) -> None:
        asked.answer()
        asked._puppet._server.close()
        asked.hang_up()

    book, _, _ = send(die, stop_after=4)

    reasons = [reason for _, reason, _ in book.failures]
    assert "connection_refused" in reasons
    assert all(departure.sent_s == float("inf") for departure, reason, _ in book.failures if "refused" in reason)


def test_connecting_to_nobody_is_an_error_before_anything_is_sent():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        sender = Sender(Load(host="127.0.0.1", port=taken.getsockname()[1], requests=[post()]), Book())

        with pytest.raises(ConnectionRefusedError):
            uvloop.run(sender.connect())


def test_what_was_due_and_could_not_leave_in_time_is_counted_as_unsent():
    book, _, sender = send(lambda asked: asked.answer(), arrivals=Constant(3e6), duration_s=0.1, timeout_s=5)

    assert sender.unsent > 0
    assert sender.unsent + len(book.answers) + len(book.failures) == pytest.approx(3e5, abs=1)


def test_a_sender_runs_again_on_the_connections_it_has():
    async def drive() -> tuple[Book, Book, int]:
        async with PuppetHttp(lambda asked: asked.answer()) as puppet:
            warm, real = Book(), Book()
            sender = Sender(Load(host="127.0.0.1", port=puppet.port, requests=[post()], connections=2), warm)
            await sender.connect()
            await sender.run(duration_s=0.02)
            await sender.run(duration_s=0.02, recorder=real)
            await sender.close()
            return warm, real, puppet.connections

    warm, real, connections = uvloop.run(drive())
    assert connections == 2
    assert warm.answers
    assert min(departure.number for departure, *_ in real.answers) == 0


def test_a_closed_loop_replaces_connections_that_were_lost_between_two_runs():
    async def drive() -> tuple[Book, int]:
        asked: list[Asked] = []

        def answer(one: Asked) -> None:
            asked.append(one)
            one.answer()

        async with PuppetHttp(answer) as puppet:
            warm, real = Book(), Book()
            sender = Sender(Load(host="127.0.0.1", port=puppet.port, requests=[post()], connections=2), warm)
            await sender.connect()
            await sender.run(duration_s=0.02)
            for one in set(asked):
                one.hang_up()
            await sender.run(duration_s=0.1, recorder=real)
            await sender.close()
            return real, puppet.connections

    real, connections = uvloop.run(drive())
    assert connections == 4
    assert any(status == 200 for _, _, status, _ in real.answers)


def test_a_connection_that_gives_up_as_the_next_run_begins_is_opened_for_that_one():
    def die(asked: Asked) -> None:
        asked._puppet._server.close()
        asked.hang_up()

    async def drive() -> Book:
        async with PuppetHttp(die) as puppet:
            warm, real = Book(), Book()
            sender = Sender(Load(host="127.0.0.1", port=puppet.port, requests=[post()]), warm)
            await sender.connect()
            await sender.run(duration_s=0.05)
            begins_s = monotonic() + 0.15  # the pause before the next attempt is over, and is noticed together with it
            asyncio.get_running_loop().call_later(0.01, sleep, 0.2)
            await sender.run(duration_s=0.2, start_at_s=begins_s, recorder=real)
            await sender.close()
            return real

    assert {reason for _, reason, _ in uvloop.run(drive()).failures} == {"connection_refused"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"requests": []},
        {"connections": 0},
        {"duration_s": float("inf")},
        {"duration_s": 0.0},
        {"timeout_s": 0.0},
        {"max_failed_ratio": 0.0},
    ],
)
def test_a_load_that_cannot_be_is_refused_where_it_is_made(wrong):
    with pytest.raises(ValueError, match=r"must be|nothing|bounded"):
        Load(**({"host": "h", "port": 1, "requests": [b"x"]} | wrong))


def test_what_was_due_after_a_stop_is_not_unsent():
    plan = Replay([0.0, *(0.02 + 0.0001 * number for number in range(1000))])
    book, _, sender = send(lambda asked: asked.answer(), arrivals=plan, stop_after=1)

    assert sender.stopped_because == "enough"
    assert sender.sent_for_s < 0.02
    assert (len(book.answers), sender.unsent) == (1, 0)
