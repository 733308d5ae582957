"""CPU by the ASGI door and as a route."""

import statistics

from tables.markdown import Document, ratio_text, table


def lines(document: Document) -> list[str]:
    """Microseconds, and the ratio round by round."""
    rounds = document["rounds"]
    door = rounds["ASGI door"]
    return [
        "Microseconds of CPU a request:",
        "",
        *table(
            ["", "lowest", "median", "of the door's"],
            (
                [
                    name,
                    min(taken),
                    statistics.median(taken),
                    ratio_text([a / b for a, b in zip(taken, door, strict=True)]),
                ]
                for name, taken in rounds.items()
            ),
        ),
    ]
