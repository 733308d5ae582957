"""Decoding and encoding, by wire format and size."""

from tables.markdown import Document, table


def lines(document: Document) -> list[str]:
    """A row a format, three columns a size; `times` is to the JSON of `/predict`, decoding and encoding together."""
    found = []
    for floats, formats in document["results_by_floats"].items():
        json_us = total_us(formats["/predict, JSON"])
        found += [
            f"{int(floats):,} floats in, {document['outputs']} out; microseconds:",
            "",
            *table(
                ["", "body bytes", "decode", "encode", "of /predict JSON's"],
                (
                    [name, cost["body_bytes"], cost["decode_us"], cost["encode_us"], f"{total_us(cost) / json_us:.4g}"]
                    for name, cost in formats.items()
                ),
            ),
        ]
    return found


def total_us(cost: Document) -> float:
    """Both ways."""
    total: float = cost["decode_us"] + cost["encode_us"]
    return total
