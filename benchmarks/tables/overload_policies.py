"""Goodput of each policy, by workload and load, in virtual time."""

from tables.markdown import Document, table


def lines(document: Document) -> list[str]:
    """Percent of the capacity; then what the policy misses of what it should hold."""
    cells = document["cells"]
    policies = list(dict.fromkeys(name for cell in cells for name in cell["goodput"]))
    rows = [
        [
            cell["workload"],
            f"{cell['load']}x",
            *(cell["goodput"].get(name) for name in policies),
            f"{cell['of_best']:.2f}",
        ]
        for cell in cells
    ]
    missed = [f"- {claim}: {', '.join(where) or 'holds everywhere'}" for claim, where in document["missed"].items()]
    return [
        f"Goodput in percent of the capacity, mean of {len(document['seeds'])} seeds;",
        "`of best` is slo's part of the best rival's:",
        "",
        *table(["workload", "load", *policies, "of best"], rows),
        "Where slo misses what is asked of it:",
        "",
        *missed,
        "",
    ]
