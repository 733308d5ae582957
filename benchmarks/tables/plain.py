"""Any result: single values as a list, collections of flat entries as tables, and no more; the file has the rest."""

from typing import Any

from tables.markdown import LONGEST_TABLE, Document, show, table

TOLD_ELSEWHERE = ("question", "command", "versions", "machine", "python", "unit")


def lines(document: Document) -> list[str]:
    """Of the parts that can be shown."""
    single = [f"- {words(key)}: {show(value)}" for key, value in document.items() if is_told(key) and is_single(value)]
    found = [*single, ""] if single else []
    for key, value in document.items():
        if is_told(key) and not is_single(value):
            found += part(key, value)
    return found


def part(key: str, value: Any) -> list[str]:
    """One entry that is no single value."""
    if isinstance(value, dict) and value and all(is_single(entry) for entry in value.values()):
        return [f"{words(key)}:", "", *table(["", ""], value.items())]
    named = isinstance(value, dict)
    entries = list(value.values()) if named else value
    if not entries or len(entries) > LONGEST_TABLE or not all(isinstance(entry, dict) for entry in entries):
        return []
    columns = [column for column in entries[0] if all(is_single(entry.get(column)) for entry in entries)]
    rows = [[entry.get(column) for column in columns] for entry in entries]
    if named:
        rows = [[name, *row] for name, row in zip(value, rows, strict=True)]
    return [f"{words(key)}:", "", *table([*([""] if named else []), *map(words, columns)], rows)] if columns else []


def is_told(key: str) -> bool:
    """Whether it is shown here."""
    return key not in TOLD_ELSEWHERE


def is_single(value: Any) -> bool:
    """Whether it fits into a cell."""
    return not isinstance(value, (dict, list))


def words(key: str) -> str:
    """`p99_ms` as `P99 ms`."""
    return key[:1].upper() + key[1:].replace("_", " ")
