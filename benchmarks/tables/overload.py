"""Goodput and latency of each policy on the real server."""

from tables.markdown import Document, number, table


def lines(document: Document) -> list[str]:
    """A part a model."""
    found = []
    for workload in document["workloads"].values():
        cells = {(cell["load"], cell["policy"]): cell["median"] for cell in workload["cells"]}
        loads, policies = sorted({load for load, _ in cells}), list(workload["policies"])
        neighbours = [cell["neighbours_cores"] for cell in cells.values()]
        found += [
            f"The model {workload['model']}: {workload['capacity_per_s']:,.0f} rows/s; SLO {workload['slo_ms']:g} ms.",
            f"Other processes kept {min(neighbours):.2f} to {max(neighbours):.2f} cores busy.",
            "Goodput in percent of the capacity, and p99 of the admitted in ms:",
            "",
            *table(
                ["load", *policies],
                ([f"{load:g}x", *(cell_text(cells[load, name]) for name in policies)] for load in loads),
            ),
            f"Made by `{workload['command']}`.",
            "",
        ]
    return found


def cell_text(cell: Document) -> str:
    """Goodput and latency."""
    return f"{cell['goodput_percent']:.0f} %, {number(cell['admitted_p99_ms'])} ms" if cell["admitted_p99_ms"] else "-"
