"""Tables and lists of Markdown; numbers are shown to three digits, with a comma from a thousand on."""

from collections.abc import Iterable, Sequence
from typing import Any

Document = dict[str, Any]
"""A file of `results/`."""

LONGEST_TABLE = 48


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Lines of a table; columns of numbers are set to the right."""
    shown = [[show(cell) for cell in row] for row in rows]
    is_number = [
        all(row[column][:1].isdigit() or row[column] in ("", "-") for row in shown) for column in range(len(header))
    ]
    return [
        line(header),
        line("--:" if right else "---" for right in is_number),
        *(line(row) for row in shown),
        "",
    ]


def line(cells: Iterable[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def show(value: Any) -> str:
    """A cell: nothing for what is not there, numbers short, everything else as text."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    return str(value)


def number(value: float) -> str:
    """Three significant digits, no exponent, whole from a hundred on."""
    if abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{float(f'{value:.3g}'):.10f}".rstrip("0").rstrip(".")


def ratio_text(ratios: Sequence[float]) -> str:
    """`1.52 (1.33 to 1.81)`: the median, the least and the largest."""
    ordered = sorted(ratios)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return f"{median:.2f} ({ordered[0]:.2f} to {ordered[-1]:.2f})" if len(ordered) > 1 else f"{median:.2f}"
