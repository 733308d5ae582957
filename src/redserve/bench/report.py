"""A result as one HTML page that needs nothing else: no script, no font, no network."""

from html import escape
from pathlib import Path

from redserve.bench.mistakes import BenchError
from redserve.bench.plots import plots_of, run_of_interest
from redserve.bench.result import Result
from redserve.bench.summary import heading, summarise

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; font-size: 0.8rem; line-height: 1.4 }
figure { margin: 1.5rem 0 } figure svg { width: 100%; height: auto }
table { border-collapse: collapse } td { padding: 0.1rem 1rem 0.1rem 0; vertical-align: top }
.alarm { border-left: 4px solid #c0392b; padding-left: 1rem }
"""


def render(result: Result) -> str:
    """The page."""
    title, _, where = heading(result.setup).partition("\n")
    alarms = [run.server.mismatch for run in result.runs if run.server is not None and run.server.mismatch]
    if len(result.runs) == 1:  # of several, the table below says which ones
        alarms += result.runs[0].notes
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1><p>{escape(where.strip())}</p>",
        *(f'<p class="alarm">{escape(alarm)}</p>' for alarm in alarms),
        f"<pre>{escape(summarise(result).strip(chr(10)))}</pre>",
        f"<p>{escape(_which(result))}</p>",
        *(f"<figure>{svg}</figure>" for svg in plots_of(result)),
        "<h2>Where and how</h2><table>",
        f"<tr><td>command</td><td><code>{escape(result.command)}</code></td></tr>",
        *(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in result.environment.items()),
        "</table></body></html>\n",
    ]
    return "\n".join(parts)


def _which(result: Result) -> str:
    if result.sweep is not None:
        rate = run_of_interest(result).rate_per_s or 0.0
        return f"First all rates; then, in detail, the run at {rate:,.0f}/s."
    return f"In detail: the last of {len(result.runs)} runs." if len(result.runs) > 1 else ""


def write_report(result: Result, path: Path) -> None:
    """Write the page.

    Raises:
        BenchError: It cannot be written.
    """
    try:
        path.write_text(render(result), encoding="utf-8")
    except OSError as error:
        raise BenchError(f"{path}: {error.strerror}") from error
