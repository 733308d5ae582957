"""Two results side by side: the ratio of each pair of runs, and how far the pairs spread.

The i-th run of one is compared with the i-th of the other. When the two were made in turns (A B A B), what a machine's
weather does to one it does to the other, and the ratios tell of the servers alone.
"""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from redserve.bench.mistakes import BenchError
from redserve.bench.result import Result, Run

_NUMBERS: Mapping[str, Callable[[Run], float]] = {
    "ok/s": lambda run: run.client.ok_per_s,
    "p50": lambda run: run.client.latency.p50_s,
    "p95": lambda run: run.client.latency.p95_s,
    "p99": lambda run: run.client.latency.p99_s,
    "failed": lambda run: float(run.client.failed + run.client.unsent),
}
_MAY_DIFFER = frozenset({"url", "server", "model", "request_bytes"})


@dataclass(frozen=True, kw_only=True)
class Line:
    """One number of both; `ratios` are B to A, a pair each, without pairs of which A is 0."""

    name: str
    a: float
    b: float
    ratios: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What two results say together.

    Attributes:
        lines: A number each: medians and ratios.
        pairs: Of runs.
        is_interleaved: They were made in turns.
        differences: Settings that are not the same, besides server and model.
    """

    lines: tuple[Line, ...]
    pairs: int
    is_interleaved: bool
    differences: tuple[str, ...]


def compare(a: Result, b: Result) -> Comparison:
    """Set `b` against `a`.

    Raises:
        BenchError: An open loop and a closed one mean different things by latency; a sweep's runs have no pairs.
    """
    if a.setup.loop != b.setup.loop:
        raise BenchError("one is a closed loop, the other an open one: their latencies are not comparable")
    if (a.sweep is None) != (b.sweep is None):
        raise BenchError("one of them is a sweep, the other is not")
    if a.sweep is not None and b.sweep is not None:
        knees = (a.sweep.knee_per_s or 0.0, b.sweep.knee_per_s or 0.0)
        pairs, lines = 1, [_line("knee/s", [knees])]
    else:
        pairs = min(len(a.runs), len(b.runs))
        both = list(zip(a.runs, b.runs, strict=False))
        lines = [_line(name, [(of(one), of(other)) for one, other in both]) for name, of in _NUMBERS.items()]
    mine, theirs = asdict(a.setup), asdict(b.setup)
    differences = (f"{key}: {mine[key]} and {theirs[key]}" for key in mine if mine[key] != theirs[key])
    return Comparison(
        lines=tuple(lines),
        pairs=pairs,
        is_interleaved=_in_turns(a, b),
        differences=tuple(text for text in differences if text.partition(":")[0] not in _MAY_DIFFER),
    )


def describe(comparison: Comparison, a: Result, b: Result) -> str:
    """As text."""
    lines = ["", f"redserve bench · {a.setup.loop} loop · B against A, {comparison.pairs} pairs of runs"]
    for name, result in (("A", a), ("B", b)):
        lines.append(f"  {name}  {result.setup.url} {result.setup.server} {result.setup.model}".rstrip())
    lines += ["", f"  {'':<8}{'A':>12}{'B':>12}{'B / A':>10}   each pair"]
    for line in comparison.lines:
        is_time = line.name.startswith("p")
        values = [f"{1000 * value:,.2f} ms" if is_time else f"{value:,.0f}" for value in (line.a, line.b)]
        ratio = f"{statistics.median(line.ratios):.2f}" if line.ratios else "-"
        spread = f"{min(line.ratios):.2f} to {max(line.ratios):.2f}" if line.ratios else "A has none"
        lines.append(f"  {line.name:<8}{values[0]:>12}{values[1]:>12}{ratio:>10}   {spread}")
    if comparison.pairs < 3:
        lines.append("  note      fewer than 3 pairs: the spread says little (--rounds 5)")
    if not comparison.is_interleaved:
        lines.append(
            "  note      not made in turns: what changed on the machine meanwhile is in the ratios (--against)"
        )
    lines += [f"  note      they differ in {difference}" for difference in comparison.differences]
    return "\n".join(lines) + "\n"


def _line(name: str, pairs: list[tuple[float, float]]) -> Line:
    return Line(
        name=name,
        a=statistics.median(a for a, _ in pairs),
        b=statistics.median(b for _, b in pairs),
        ratios=tuple(b / a for a, b in pairs if a),
    )


def _in_turns(a: Result, b: Result) -> bool:
    order = sorted([(run.started_at, "a") for run in a.runs] + [(run.started_at, "b") for run in b.runs])
    names = [name for _, name in order]
    return len(a.runs) == len(b.runs) and all(set(names[at : at + 2]) == {"a", "b"} for at in range(0, len(names), 2))
