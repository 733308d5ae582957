"""Ours beside what is possible, pair by pair."""

import statistics

from tables.markdown import Document, ratio_text, table


def lines(document: Document) -> list[str]:
    """One table; the ratio is of requests a second, where there is one connection of the p50."""
    return [
        "Medians; the ratio is of requests/s, with one connection of the p50:",
        "",
        *table(
            ["", "requests/s", "limit", "p50 ms", "limit", "CPU us", "limit", "ratio"],
            (row(pair) for pair in document["pairs"]),
        ),
    ]


def row(pair: Document) -> list[object]:
    """One pair."""
    rounds, key = pair["rounds"], pair["ratio_of"]
    cells: list[object] = [pair["name"]]
    for name in ("per_s", "p50_ms", "cpu_us_per_request"):
        for who in ("ours", "limit"):
            known = [one[who][name] for one in rounds if name in one[who]]
            cells.append(statistics.median(known) if known else None)
    return [*cells, ratio_text([one["ours"][key] / one["limit"][key] for one in rounds])]
