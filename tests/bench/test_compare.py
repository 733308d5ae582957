import pytest
from results import result_of, run_of, swept, tally_of

from redserve.bench.compare import compare, describe
from redserve.bench.mistakes import BenchError


def two(*, turns: bool = True):
    a = [run_of(tally_of(p50_ms=4 * weather), at=2 * n) for n, weather in enumerate((1, 2, 3))]
    b = [
        run_of(tally_of(p50_ms=2 * weather, ok=1800), at=2 * n + 1 if turns else 100 + n)
        for n, weather in enumerate((1, 2, 3))
    ]
    return result_of(*a), result_of(*b)


def test_ratios_are_of_pairs_so_that_the_weather_cancels():
    a, b = two()
    comparison = compare(a, b)
    lines = {line.name: line for line in comparison.lines}

    assert comparison.pairs == 3
    assert comparison.is_interleaved
    assert lines["p99"].ratios == pytest.approx((0.5, 0.5, 0.5), rel=0.05)
    assert lines["ok/s"].ratios == pytest.approx((2, 2, 2), rel=0.15)
    assert lines["failed"].ratios == ()


def test_the_text_has_the_loop_the_ratio_and_its_spread():
    text = describe(compare(*two()), *two())

    assert "closed loop" in text
    assert "0.50 to 0.50" in text
    assert "note" not in text


def test_runs_that_were_not_made_in_turns_are_compared_with_a_warning():
    assert not compare(*two(turns=False)).is_interleaved
    assert "not made in turns" in describe(compare(*two(turns=False)), *two(turns=False))


def test_settings_that_differ_are_named():
    a, b = result_of(run_of()), result_of(run_of(at=1), connections=8, url="http://other/predict/m")

    assert compare(a, b).differences == ("connections: 64 and 8",)
    assert "they differ in connections: 64 and 8" in describe(compare(a, b), a, b)
    assert "fewer than 3 pairs" in describe(compare(a, b), a, b)


def test_knees_of_sweeps_are_compared():
    comparison = compare(swept(), swept())

    assert [(line.name, line.a, line.ratios) for line in comparison.lines] == [("knee/s", 400.0, (1.0,))]


def test_what_cannot_be_compared_is_refused():
    closed, opened = result_of(run_of()), result_of(run_of(rate_per_s=100))

    with pytest.raises(BenchError, match="one is a closed loop, the other an open one"):
        compare(closed, opened)
    with pytest.raises(BenchError, match="a sweep"):
        compare(opened, swept())
