"""Latency by load and by the delay of an idle engine."""

from tables.markdown import Document, number, table


def lines(document: Document) -> list[str]:
    """A row a load, a column a delay."""
    cells = {(entry["load"], entry["delay_ms"]): entry for entry in document["table"]}
    loads, delays = (sorted({key[place] for key in cells}) for place in (0, 1))
    rows = [
        [
            f"{load:.0%}",
            *(f"{number(cells[load, delay]['mean_ms'])} / {number(cells[load, delay]['p99_ms'])}" for delay in delays),
        ]
        for load in loads
    ]
    header = ["load", *("at once" if not delay else f"up to {delay:g} ms" for delay in delays)]
    worst = document["worst_greedy_over_best_delay"]
    return [
        "Mean / p99 latency in ms:",
        "",
        *table(header, rows),
        f"At the load where running at once is worst, its mean is {worst:.3f} times that of the best delay.",
        "",
    ]
