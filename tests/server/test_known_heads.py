"""What is remembered of a head, and what is not."""

import pytest

from redserve.server.known_heads import KnownHead, KnownHeads

LINES = [(b"host", b"test"), (b"content-type", b"application/json"), (b"content-length", b"5")]
TEXT = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n"


def head_of(*more: tuple[bytes, bytes]) -> KnownHead:
    lines = [*LINES, *more]
    return KnownHead(b"/predict", lines, dict(lines), 5, len(TEXT))


def test_a_plain_head_is_remembered():
    heads = KnownHeads()
    heads.remember(TEXT, head_of())

    assert heads.by_text[TEXT].length == 5


@pytest.mark.parametrize(
    "text",
    [
        b"\r\n" + TEXT,
        b"\r\n\r\n",
        TEXT[:-2] + b"\n",
        TEXT.replace(b"Host: ", b"Host:"),
        TEXT.replace(b"test\r\n", b"test \r\n"),
        TEXT.replace(b"test\r\n", b"test\n"),
        TEXT.replace(b"json", b"json\r\n "),
        TEXT + b"POST",
        TEXT[:-1],
        TEXT.replace(b"5", b"05"),
        TEXT.replace(b"/predict", b"/predict/other"),
        TEXT.replace(b"1.1", b"1.0"),
    ],
)
def test_a_text_that_is_not_just_what_was_read_is_not_remembered(text):
    heads = KnownHeads()
    heads.remember(text, head_of())

    assert not heads.by_text


@pytest.mark.parametrize("name", [b"authorization", b"x-api-key", b"cookie", b"proxy-authorization"])
def test_a_secret_is_not_remembered(name):
    heads = KnownHeads()
    heads.remember(TEXT[:-2] + name.title() + b": hush\r\n\r\n", head_of((name, b"hush")))

    assert not heads.by_text


def test_heads_that_are_many_do_not_fill_the_memory():
    heads = KnownHeads()
    for number in range(10_000):
        value = b"%d" % number
        heads.remember(TEXT[:-2] + b"Number: " + value + b"\r\n\r\n", head_of((b"number", value)))

    assert 0 < len(heads.by_text) <= 1_024
    assert TEXT[:-2] + b"Number: 9999\r\n\r\n" in heads.by_text


def test_a_head_of_many_lines_is_not_remembered():
    heads = KnownHeads()
    heads.remember(TEXT[:-2] + b"A: b\r\n" * 100 + b"\r\n", head_of(*[(b"a", b"b")] * 100))

    assert not heads.by_text
