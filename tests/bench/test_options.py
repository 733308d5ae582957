import argparse

import pytest

from redserve.bench import options as of
from redserve.bench.arrivals import Burst, Constant, Poisson, Ramp, Replay
from redserve.bench.command import run
from redserve.bench.mistakes import BenchError
from redserve.bench.recorded_times import read_times


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    of.add_options(parser)
    return parser.parse_args(["http://h", *words])


def test_without_a_rate_it_is_a_closed_loop():
    assert of.arrivals_of(parse()) == (None, "")


@pytest.mark.parametrize(
    ("words", "plan"),
    [
        (["--rate", "5"], Poisson(5)),
        (["--rate", "5", "--seed", "3"], Poisson(5, 3)),
        (["--rate", "5", "--arrivals", "constant"], Constant(5)),
        (["--rate", "5", "--arrivals", "burst:4"], Burst(5, 4)),
        (["--ramp", "5:50", "--duration-s", "20"], Ramp(5, 50, 20)),
    ],
)
def test_each_plan_can_be_asked_for(words, plan):
    assert of.arrivals_of(parse(*words))[0] == plan


def test_a_replay_lasts_as_long_as_its_times(tmp_path):
    path = tmp_path / "times"
    path.write_text("2026-11-28T12:00:00+00:00 GET /\n\n2026-11-28T12:00:04.500+00:00,x\n")
    options = parse("--replay", str(path), "--speed", "2")

    plan, words = of.arrivals_of(options)
    assert isinstance(plan, Replay)
    assert list(plan.times_s()) == [0.0, 2.25]
    assert of.duration_s_of(options) == pytest.approx(2.25, abs=0.01)
    assert words == "times at speed 2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("12.5\nlater\n", "line 2: 'later'"),
        ("\n", "there is no time"),
        ("0\n2026-01-01T00:00:00\n", "in ISO 8601 and in seconds"),
    ],
)
def test_times_that_cannot_be_read_say_where(tmp_path, text, message):
    (tmp_path / "times").write_text(text)

    with pytest.raises(BenchError, match=message):
        read_times(tmp_path / "times")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rate", "5", "--ramp", "1:2"], "choose one: --rate or --ramp"),
        (["--rate", "0"], "a rate must be"),
        (["--rate", "5", "--arrivals", "often"], "constant, poisson or burst:N"),
        (["--ramp", "5"], "FROM:TO"),
        (["--sweep"], "--sweep needs --slo-ms"),
        (["--sweep", "--slo-ms", "9", "--ramp", "1:2"], "it takes no --ramp"),
        (["--sweep", "--slo-ms", "9", "--rounds", "2"], "it takes no --ramp, --replay or --rounds"),
        (["--slo-ms", "-1", "--sweep"], "milliseconds must be"),
        (["-H", "no colon"], "NAME: VALUE"),
    ],
)
def test_options_that_are_wrong_end_with_2_and_a_sentence_before_anything_is_sent(capsys, words, message):
    assert run(parse(*words)) == 2
    assert message in capsys.readouterr().err


def test_no_url_is_said(capsys):
    options = parse()
    options.url = None

    assert run(options) == 2
    assert "name a URL" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_a_file_that_cannot_be_written_is_told_before_anything_is_sent(capsys, tmp_path, option):
    path = tmp_path / "nowhere" / "found"

    assert run(parse(option, str(path))) == 1
    assert capsys.readouterr().err == f"redserve bench: {path} cannot be written\n"
