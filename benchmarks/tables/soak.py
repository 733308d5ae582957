"""What came, what was answered, what stayed flat."""

from tables.markdown import Document, show, table


def lines(document: Document) -> list[str]:
    """Growth beside its tolerance, and counts."""
    grown, tolerances = document["growth_of_second_half_ratio"], document["tolerances"]
    before, after = document["before"], document["after"]
    rows = [
        [key, before.get(key), after.get(key), f"{100 * grown[key]:.3f}", f"{100 * tolerances[key]:g}"] for key in grown
    ]
    return [
        f"{document['requests']:,} requests of {len(document['visits'])} kinds, {document['rows_compared']:,} rows",
        f"compared, {len(document['samples'])} looks at the server; it ended with {document['exit_status']}.",
        f"What was wrong: {', '.join(map(show, document['wrong'])) or 'nothing'}.",
        "",
        *table(["", "before", "after", "growth over the second half %", "tolerated %"], rows),
    ]
