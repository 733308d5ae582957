"""Counting and scraping."""

from tables.markdown import Document, table


def lines(document: Document) -> list[str]:
    """Nanoseconds a request and a series, and the whole answer."""
    counting, scraping = document["counting_s"], document["scraping"]
    ours = counting["redserve"]["median"]
    names = list(scraping[0]["seconds_per_series"])
    return [
        "One request counted, in nanoseconds:",
        "",
        *table(
            ["", "lowest", "median", "times redserve's"],
            (
                [name, 1e9 * cost["lowest"], 1e9 * cost["median"], cost["median"] / ours]
                for name, cost in counting.items()
            ),
        ),
        "One scrape, median in nanoseconds a series:",
        "",
        *table(
            ["series", *names, "whole answer us", "longest pause of the loop us"],
            (
                [
                    scrape["series"],
                    *(1e9 * scrape["seconds_per_series"][name]["median"] for name in names),
                    1e6 * scrape["answer_s"]["median"],
                    1e6 * scrape["loop_pause_s"]["median"],
                ]
                for scrape in scraping
            ),
        ),
    ]
