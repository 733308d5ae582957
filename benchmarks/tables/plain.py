"""Any result: single values as a list, collections of flat entries as tables, of rounds their medians; no more."""

import statistics
from typing import Any

from tables.markdown import LONGEST_TABLE, Document, show, table

TOLD_ELSEWHERE = ("question", "command", "device", "versions", "machine", "python", "unit")


def lines(document: Document) -> list[str]:
    """Of the parts that can be shown; the file has the rest."""
    told = {key: value for key, value in document.items() if key not in TOLD_ELSEWHERE}
    single = [f"- {words(key)}: {show(value)}" for key, value in told.items() if is_single(value)]
    found = [*single, ""] if single else []
    for key, value in told.items():
        if not is_single(value):
            found += part(key, value)
    return found


def part(key: str, value: Any) -> list[str]:
    """One entry that is no single value."""
    if isinstance(value, dict) and value and all(is_single(entry) for entry in value.values()):
        return [f"{words(key)}:", "", *table(["", ""], value.items())]
    names = list(value) if isinstance(value, dict) else []
    entries = [medians(entry) for entry in (value.values() if names else value)]
    if not entries or len(entries) > LONGEST_TABLE or not all(isinstance(entry, dict) for entry in entries):
        return []
    columns = dict.fromkeys(column for entry in entries for column in entry)
    shown = [column for column in columns if all(is_single(entry.get(column)) for entry in entries)]
    rows = [[entry.get(column) for column in shown] for entry in entries]
    if not names:
        return [f"{words(key)}:", "", *table(list(map(words, shown)), rows)] if shown else []
    rows = [[name, *row] for name, row in zip(names, rows, strict=True)]
    return [f"{words(key)}:", "", *table(["", *map(words, shown)], rows)] if shown else []


def medians(entry: Any) -> Any:
    """Of rounds, a list of mappings to numbers, the median of each; anything else as it is."""
    if not isinstance(entry, list) or not entry or not all(isinstance(one, dict) for one in entry):
        return entry
    values = {key: [one.get(key) for one in entry] for key in entry[0]}
    return {
        f"median {key}": statistics.median(found)
        for key, found in values.items()
        if all(isinstance(value, int | float) for value in found)
    }


def is_single(value: Any) -> bool:
    """Whether it fits into a cell."""
    return not isinstance(value, (dict, list))


def words(key: str) -> str:
    """`p99_ms` as `P99 ms`."""
    return key[:1].upper() + key[1:].replace("_", " ")
