import io

from redserve.offline.progress import Lines, reporter_for


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_a_line_every_few_seconds_with_the_speed_since_the_last():
    now_s = 100.0
    stream = io.StringIO()
    lines = Lines(stream, clock=lambda: now_s)
    for passed_s, rows in ((1.0, 5_000_000), (4.0, 5_050_000), (1.0, 5_051_000), (4.0, 5_100_000)):
        now_s += passed_s
        lines.show(rows, rows / 10_000_000)
    lines.close()

    assert stream.getvalue().splitlines() == [
        "redserve: 5,050,000 rows, 50%, 10,000 rows/s",
        "redserve: 5,100,000 rows, 51%, 10,000 rows/s",
    ]


def test_a_pipe_has_no_share():
    now_s = 0.0
    stream = io.StringIO()
    lines = Lines(stream, clock=lambda: now_s)
    lines.show(0, None)
    now_s = 5.0
    lines.show(500, None)

    assert stream.getvalue() == "redserve: 500 rows, 100 rows/s\n"


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    bar = reporter_for(stream)
    bar.show(1000, 0.25)
    bar.show(2000, 0.5)
    bar.close()

    assert "2,000 rows" in stream.getvalue()
    assert "50%" in stream.getvalue()
