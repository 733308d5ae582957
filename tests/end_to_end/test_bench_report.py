"""The HTML report of `redserve bench` in a real browser: the plots are there, and can be read."""

import json
import re
from html import unescape
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
from browser import Browser

from bench.results import result_of, run_of, swept, tally_of
from redserve.bench.report import render
from redserve.bench.result import Result

WIDTH, HEIGHT = 1000, 3600
SMALLEST_TEXT_PX = 11
PROBE = """<pre id="probe"></pre><script>
const box = (element) => {
  const it = element.getBoundingClientRect();
  return {left: it.left + scrollX, top: it.top + scrollY, right: it.right + scrollX, bottom: it.bottom + scrollY};
};
document.getElementById("probe").textContent = JSON.stringify({
  page: document.documentElement.scrollWidth,
  fetched: performance.getEntriesByType("resource").length,
  figures: [...document.querySelectorAll("figure svg")].map((svg) => ({
    ...box(svg),
    title: svg.querySelector("title")?.textContent ?? "",
    texts: [...svg.querySelectorAll("text")].map((text) => ({...box(text), says: text.textContent.trim(),
      px: parseFloat(getComputedStyle(text).fontSize) * svg.getScreenCTM().a})),
  })),
});
</script></body>"""

RESULTS = {
    "a closed loop": (
        result_of(run_of()),
        ["Latency percentiles", "Latency over time", "Requests over time", "Batch sizes"],
    ),
    "an open loop with failures": (
        result_of(run_of(tally_of(failed=300, p50_ms=40), rate_per_s=133)),
        ["Latency percentiles", "Latency over time", "Requests over time", "Batch sizes"],
    ),
    "a server without metrics": (
        result_of(run_of(server=False)),
        ["Latency percentiles", "Latency over time", "Requests over time"],
    ),
    "a sweep": (
        swept(),
        ["Throughput and latency", "Latency percentiles", "Latency over time", "Requests over time", "Batch sizes"],
    ),
    "nothing was answered": (
        result_of(run_of(tally_of(ok=0, failed=90), server=False)),
        ["Requests over time"],
    ),
}


@pytest.fixture(params=RESULTS)
def shown(request: pytest.FixtureRequest, browser: Browser, tmp_path: Path) -> "Shown":
    return Shown(*RESULTS[request.param], browser, tmp_path)


class Shown:
    """A report as the browser lays it out, and as it draws it."""

    def __init__(self, result: Result, titles: list[str], browser: Browser, folder: Path) -> None:
        self.html = render(result)
        self.titles = titles
        page = folder / "report.html"
        page.write_text(self.html.replace("</body>", PROBE), encoding="utf-8")
        found = re.search(r'<pre id="probe">(.*?)</pre>', browser.dom(page, width=WIDTH, height=HEIGHT), re.DOTALL)
        assert found is not None
        self.layout: dict[str, Any] = json.loads(unescape(found[1]))
        page.write_text(self.html, encoding="utf-8")
        picture = folder / "report.png"
        browser.screenshot(page, picture, width=WIDTH, height=HEIGHT)
        self.pixels = matplotlib.image.imread(picture)[:, :, :3]


def test_the_plots_are_there_and_can_be_read(shown):
    figures = shown.layout["figures"]

    assert [figure["title"].partition(",")[0] for figure in figures] == shown.titles
    for figure in figures:
        assert figure["right"] - figure["left"] > 700
        texts = figure["texts"]
        assert len(texts) > 8  # title, names of two axes, ticks
        for text in texts:
            assert text["px"] >= SMALLEST_TEXT_PX, text
            assert figure["left"] <= text["left"] < text["right"] <= figure["right"], text
            assert figure["top"] <= text["top"] < text["bottom"] <= figure["bottom"], text
        for one, other in combinations(texts, 2):
            assert not overlap(one, other), f"{one['says']!r} lies on {other['says']!r} in {figure['title']}"


def test_each_plot_has_ink_in_it(shown):
    for figure in shown.layout["figures"]:
        area = shown.pixels[int(figure["top"]) : int(figure["bottom"]), int(figure["left"]) : int(figure["right"])]
        dark = (area.min(axis=2) < 0.75).mean()
        assert 0.01 < dark < 0.6, f"{figure['title']}: {dark:.3f} of it is drawn"


def test_the_page_needs_nothing_else_and_fits_its_window(shown):
    assert shown.layout["fetched"] == 0
    assert shown.layout["page"] <= WIDTH
    assert "<script" not in shown.html
    assert not re.search(r'(?:src|href)="(?!#)', shown.html)


def test_the_loop_is_named_in_every_plot_of_latency(shown):
    loops = [figure["title"] for figure in shown.layout["figures"] if "atency" in figure["title"]]

    assert all(title.endswith(("open loop", "closed loop")) for title in loops)


def overlap(one: dict[str, float], other: dict[str, float], *, by_px: float = 2.0) -> bool:
    """Whether two boxes share more than their rims."""
    return (
        min(one["right"], other["right"]) - max(one["left"], other["left"]) > by_px
        and min(one["bottom"], other["bottom"]) - max(one["top"], other["top"]) > by_px
    )
