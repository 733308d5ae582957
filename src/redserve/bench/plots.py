"""The plots of the report, as SVG whose text is text: it can be read aloud, searched, and measured by a test."""

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from redserve.bench.histogram import Histogram
from redserve.bench.result import Result, Run, Sweep

_BLUE, _RED, _GRAY, _GREEN = "#1f5fa8", "#c0392b", "#666666", "#2e8b57"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "redserve",
    "font.family": "sans-serif",
    "font.sans-serif": ["system-ui", "Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 12.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "figure.facecolor": "white",
}
_SIZE_INCHES = (8.0, 4.0)
_PERCENTS = (0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99)
_SHOWN_PERCENTS = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99)


def percentiles(run: Run) -> str:
    """Latency over percentile, with the server's own beside it."""

    def draw(axes: Axes) -> None:
        histogram = Histogram(run.client.histogram)
        shown = [percent for percent in _PERCENTS if len(histogram) * (1 - percent / 100) >= 1]
        values_ms = [1000 * value for value in histogram.percentiles_s(tuple(shown))]
        axes.plot([_nines(percent) for percent in shown], values_ms, color=_BLUE, marker="o", label="sender")
        if run.server is not None and run.server.latency.count:
            times = run.server.latency
            points = {50.0: times.p50_s, 95.0: times.p95_s, 99.0: times.p99_s}
            axes.plot(
                [_nines(percent) for percent in points],
                [1000 * value for value in points.values()],
                color=_RED,
                marker="s",
                linestyle="--",
                label="server's /metrics",
            )
        ticks = [percent for percent in _SHOWN_PERCENTS if percent <= max(shown, default=0.0)]
        axes.set_xscale("log")
        axes.set_xticks([_nines(percent) for percent in ticks], [f"p{percent:g}" for percent in ticks])
        axes.minorticks_off()
        _log_ms(axes)
        axes.legend()

    return _svg(draw, f"Latency percentiles, {run.client.loop} loop", "percentile", "latency, ms")


def latency_over_time(run: Run) -> str:
    """p50 and p99 of each stretch of the run."""

    def draw(axes: Axes) -> None:
        moments = [moment for moment in run.client.timeline if moment.ok]
        at_s = [moment.at_s + moment.seconds / 2 for moment in moments]
        axes.plot(at_s, [1000 * moment.p99_s for moment in moments], color=_RED, marker="o", label="p99")
        axes.plot(at_s, [1000 * moment.p50_s for moment in moments], color=_BLUE, marker="o", label="p50")
        axes.set_xlim(0, run.client.seconds)
        _log_ms(axes)
        axes.legend()

    return _svg(draw, f"Latency over time, {run.client.loop} loop", "seconds, by planned time", "latency, ms")


def rate_over_time(run: Run) -> str:
    """Answers and failures a second."""

    def draw(axes: Axes) -> None:
        moments = run.client.timeline
        at_s = [moment.at_s + moment.seconds / 2 for moment in moments]
        axes.plot(at_s, [each.ok / each.seconds for each in moments], color=_GREEN, marker="o", label="ok")
        axes.plot(at_s, [each.failed / each.seconds for each in moments], color=_RED, marker="o", label="failed")
        if run.rate_per_s is not None:
            axes.axhline(run.rate_per_s, color=_GRAY, linestyle=":", label="asked for")
        axes.set_xlim(0, run.client.seconds)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.legend()

    return _svg(draw, "Requests over time", "seconds, by planned time", "requests a second")


def batch_sizes(run: Run) -> str:
    """How many runs of the model had how many rows; empty where the server does not say."""
    server = run.server
    if server is None or not server.batch_sizes:
        return ""
    labels = ["more" if each.at_most_rows is None else f"{each.at_most_rows:g}" for each in server.batch_sizes]
    shares = [100 * each.runs / sum(other.runs for other in server.batch_sizes) for each in server.batch_sizes]

    def draw(axes: Axes) -> None:
        axes.bar(range(len(labels)), shares, color=_BLUE)
        step = -(-len(labels) // 16)
        axes.set_xticks(range(0, len(labels), step), labels[::step])
        axes.grid(visible=False, axis="x")

    return _svg(draw, "Batch sizes, by the server", "rows in a run, at most", "% of runs")


def throughput_and_latency(result: Result, sweep: Sweep) -> str:
    """Latency over rate, with the SLO and the knee."""

    def draw(axes: Axes) -> None:
        steps = sorted(sweep.steps, key=lambda step: step.rate_per_s)
        rates = [step.rate_per_s for step in steps]
        clients = [result.runs[step.run].client for step in steps]
        axes.plot(rates, [1000 * each.latency.p99_s for each in clients], color=_RED, marker="o", label="p99")
        axes.plot(rates, [1000 * each.latency.p50_s for each in clients], color=_BLUE, marker="o", label="p50")
        axes.axhline(1000 * sweep.slo_s, color=_GRAY, linestyle="--", label="SLO")
        if sweep.knee_per_s is not None:
            axes.axvline(sweep.knee_per_s, color=_GREEN, linestyle="--", label=f"knee: {sweep.knee_per_s:,.0f}/s")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        _log_ms(axes)
        axes.legend()

    return _svg(draw, "Throughput and latency, open loop", "requests a second, asked for", "latency, ms")


def _nines(percent: float) -> float:
    """Where a percentile stands: each further nine is one step."""
    return 1 / (1 - percent / 100)


def _log_ms(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    low, high = axes.get_ylim()
    if high / low < 30:
        axes.yaxis.set_minor_formatter(FuncFormatter(_two_five))
    else:
        axes.yaxis.set_minor_formatter(NullFormatter())


def _two_five(value: float, _: object) -> str:
    """Labels 2 and 5 within a decade."""
    digit = f"{value:.0e}"[0]
    return f"{value:,g}" if digit in "25" else ""


def _svg(draw: Callable[[Axes], None], title: str, across: str, up: str) -> str:
    """One plot, without the parts of a file that HTML has no place for; it grows with the page."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        axes.set_title(title)
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Title": title})
    svg = written.getvalue()
    svg = re.sub(r' height="[\d.]+pt"', "", svg[svg.index("<svg") :], count=1)
    return re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 role="img"', svg, count=1)


def plots_of(result: Result) -> Sequence[str]:
    """Those that the result has something for."""
    sweep = result.sweep
    drawn = [] if sweep is None else [throughput_and_latency(result, sweep)]
    run = run_of_interest(result)
    drawn += [percentiles(run), latency_over_time(run), rate_over_time(run), batch_sizes(run)]
    return [svg for svg in drawn if svg]


def run_of_interest(result: Result) -> Run:
    """The run whose details are drawn: a sweep's best, else the last."""
    if result.sweep is not None:
        kept = [step for step in result.sweep.steps if step.is_within_slo]
        if kept:
            return result.runs[max(kept, key=lambda step: step.rate_per_s).run]
    return result.runs[-1]
