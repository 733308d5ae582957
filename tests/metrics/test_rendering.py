import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest as generate_text
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from redserve.metrics.cells import Counter, Gauge, Histogram
from redserve.metrics.families import FamilySet
from redserve.metrics.rendering import render as render_chunks

label_values = st.text(max_size=8) | st.sampled_from(
    ["", "%", "%d", "\\", '"', "\n", "\\n", "ü", "\u2028", "{}", "a,b=c"]
)
# prometheus_client cannot parse the quotes and backslashes that it writes into exemplars itself.
traces = st.text(alphabet="0123456789abcdef", max_size=32)
exemplars = st.none() | st.dictionaries(st.sampled_from(["trace_id", "span_id"]), traces, min_size=1)
amounts = st.floats(0, 1e9)


def render(copies, *, is_openmetrics):
    return b"".join(render_chunks(copies, is_openmetrics=is_openmetrics)).decode()


def families_of(text, parse):
    families = {}
    for family in parse(text):
        samples = [
            (s.name, tuple(sorted(s.labels.items())), s.value, s.exemplar and (s.exemplar.labels, s.exemplar.value))
            for s in family.samples
        ]
        families[family.name] = (family.type, family.documentation, family.unit, samples)
    return families


def registered(*families):
    registry = CollectorRegistry()
    families = FamilySet(families)
    registry.register(families)
    return registry, families


def assert_rendered_as_by_prometheus_client(*families):
    registry, family_set = registered(*families)
    text = render([family_set.copy()], is_openmetrics=False)
    assert families_of(text, parse_text) == families_of(generate_text(registry).decode(), parse_text)
    openmetrics = render([family_set.copy()], is_openmetrics=True) + "# EOF\n"
    expected = generate_openmetrics(registry).decode()
    assert families_of(openmetrics, parse_openmetrics) == families_of(expected, parse_openmetrics)


@settings(deadline=None)
@given(rows=st.dictionaries(st.tuples(label_values, label_values), st.tuples(st.integers(0, 2**53), exemplars)))
def test_counters_are_rendered_as_by_prometheus_client(rows):
    counter = Counter("c", 'A "documented"\ncounter: 100 % \\.', ("a", "b"))
    for labels, (count, exemplar) in rows.items():
        series = counter.series(*labels)
        series.cell[0] += count
        if exemplar:
            series.set_exemplar(0, exemplar, 1)

    assert_rendered_as_by_prometheus_client(counter)


@settings(deadline=None)
@given(rows=st.dictionaries(label_values, st.floats(allow_nan=False)))
def test_gauges_are_rendered_as_by_prometheus_client(rows):
    gauge = Gauge("g", "A gauge.", ("a",))
    for label, value in rows.items():
        gauge.series(label).cell[0] = value

    assert_rendered_as_by_prometheus_client(gauge)


@settings(deadline=None)
@given(
    bounds=st.lists(st.floats(1e-6, 1e8), min_size=1, max_size=5, unique=True).map(sorted),
    rows=st.dictionaries(label_values, st.lists(st.tuples(amounts, exemplars), max_size=5), max_size=3),
)
def test_histograms_are_rendered_as_by_prometheus_client(bounds, rows):
    histogram = Histogram("h_seconds", "A histogram.", ("a",), bounds=bounds, unit="seconds")
    for label, observations in rows.items():
        series = histogram.series(label)
        for value, exemplar in observations:
            position = histogram.observe(series, value)
            if exemplar:
                series.set_exemplar(position, exemplar, value)

    assert_rendered_as_by_prometheus_client(histogram)


def test_families_without_labels_have_no_braces():
    counter, gauge, histogram = Counter("c", "C."), Gauge("g", "G."), Histogram("h", "H.", bounds=[1])
    for family in (counter, gauge, histogram):
        family.series()

    assert_rendered_as_by_prometheus_client(counter, gauge, histogram)
    assert "c_total 0\n" in render([registered(counter)[1].copy()], is_openmetrics=False)


@pytest.mark.parametrize(("value", "total"), [(math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN")])
def test_a_value_that_is_no_number_does_not_break_the_lines(value, total):
    histogram = Histogram("h", "H.", bounds=[1])
    histogram.observe(histogram.series(), value)

    text = render([registered(histogram)[1].copy()], is_openmetrics=False)
    assert text.endswith(f"h_count 1\nh_sum {total}\n")


def test_exemplars_are_escaped_as_label_values_are():
    counter = Counter("c", "C.")
    counter.series().set_exemplar(0, {"b": 'say "x"', "a": "back\\slash\nline"}, 1)
    registry, families = registered(counter)

    expected = generate_openmetrics(registry).decode().replace("c_total 0.0 ", "c_total 0 ")
    assert render([families.copy()], is_openmetrics=True) + "# EOF\n" == expected


def test_the_lines_of_a_series_show_what_it_counted_last():
    counter = Counter("c", "C.", ("a",))
    counter.series("x").cell[0] = 1
    _, families = registered(counter)
    assert 'c_total{a="x"} 1\n' in render([families.copy()], is_openmetrics=False)

    counter.series("x").cell[0] = 2
    assert 'c_total{a="x"} 2\n' in render([families.copy()], is_openmetrics=False)


def test_the_text_format_leaves_exemplars_out():
    counter = Counter("c", "C.")
    counter.series().set_exemplar(0, {"trace_id": "abc"}, 1)
    _, families = registered(counter)

    assert "abc" not in render([families.copy()], is_openmetrics=False)
    assert 'c_total 0 # {trace_id="abc"} 1.0 ' in render([families.copy()], is_openmetrics=True)


def test_a_large_render_comes_in_chunks_and_in_order():
    counter = Counter("c", "C.", ("a",))
    for number in range(2500):
        counter.series(f"{number:04}").cell[0] = number
    chunks = list(render_chunks([registered(counter)[1].copy()], is_openmetrics=False))

    assert len(chunks) == 3
    lines = b"".join(chunks).decode().splitlines()[2:]
    assert lines == [f'c_total{{a="{number:04}"}} {number}' for number in range(2500)]
