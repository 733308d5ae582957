"""What was asked of a GPU: cells of any depth, as tables of those entries that have the same columns."""

from collections.abc import Iterator
from typing import Any

from tables.markdown import Document, table
from tables.plain import is_single, words


def lines(document: Document) -> list[str]:
    """Each table begins with where its entries stand in the file."""
    tables: dict[tuple[str, ...], list[tuple[str, dict[str, Any]]]] = {}
    for name, cell in document["cells"].items():
        for path, entry in entries(name, cell):
            tables.setdefault(tuple(entry), []).append((path, entry))
    found = []
    for columns, rows in tables.items():
        header = ["", *map(words, columns)]
        found += table(header, [[path, *entry.values()] for path, entry in rows])
    return found


def entries(path: str, value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every collection of single values below `value`, with its place."""
    parts = value if isinstance(value, dict) else {str(number): part for number, part in enumerate(value, start=1)}
    entry = {key: part for key, part in parts.items() if is_single(part)}
    if entry:
        yield path, entry
    for key, part in parts.items():
        if not is_single(part):
            yield from entries(f"{path}, {words(key)}", part)
