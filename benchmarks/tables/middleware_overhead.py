"""What each middleware adds to a request."""

from tables.markdown import Document, table


def lines(document: Document) -> list[str]:
    """A table a kind of application; `times` is the cost as a multiple of redserve's."""
    found = []
    for case, variants in document["results"].items():
        ours = variants["redserve"]["over_bare_lowest_us"]
        rows = []
        for name, figures in variants.items():
            if name == "bare":
                continue
            spread = figures["over_bare_lowest_us_by_process"]
            cost = figures["over_bare_lowest_us"]
            rows.append([name, cost, f"{min(spread)} to {max(spread)}", figures["over_bare_median_us"], cost / ours])
        bare = variants["bare"]["lowest_us"]
        found += [
            f"{case}, which takes {bare} us by itself; microseconds more a request:",
            "",
            *table(["", "lowest round", "by process", "median", "times redserve's"], rows),
        ]
    return found
