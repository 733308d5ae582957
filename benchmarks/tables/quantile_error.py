"""How wrong a quantile read from a histogram is."""

from tables.markdown import Document, table


def lines(document: Document) -> list[str]:
    """Percent."""
    header = ["layout", "bounds", "median error %", "worst p50 %", "worst p95 %", "worst p99 %"]
    rows = []
    for result in document["results"]:
        worst = result["worst"]
        errors = [result["all"]["median"], worst["p50"], worst["p95"], worst["p99"]]
        rows.append([result["layout"], result["finite_bounds"], *(100 * error for error in errors)])
    return table(header, rows)
