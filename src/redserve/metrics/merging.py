"""The numbers of several processes as one: pure, on snapshots that were each taken in one step.

    snapshot(sets) in each process ─> merged([...]) ─> copies_of(sets, merged) ─> rendered as if they were one process's
    a process died ─> departed(its last snapshot): its counts stay for good, its gauges go

The rule of a family (`Family.across`) says how its series of the same labels become one. Each snapshot holds
received = sum(requests_total) + in flight, and so does every sum of them, departed ones included.
"""

from collections.abc import Iterable, Mapping

from prometheus_client.core import Exemplar

from redserve.metrics.cells import Across, Number, Series
from redserve.metrics.families import FamilySet, SetCopy
from redserve.metrics.labels import OTHER

Row = tuple[list[Number], Mapping[int, Exemplar]]
Rows = dict[tuple[str, ...], Row]

Snapshot = dict[str, tuple[Across, Rows]]
"""By name of the family: its rule, and its cells and exemplars by label values; may be pickled."""

DIED = "worker_died"
"""The reason of requests that were in flight when their process died."""


def snapshot(sets: Iterable[FamilySet]) -> Snapshot:
    """The numbers of all families as they are now; called on the event loop, they agree with each other."""
    return {
        family.name: (family.across, {series.values: (cell, exemplars) for series, cell, exemplars in rows})
        for families in sets
        for family, rows in families.copy()
    }


def merged(snapshots: Iterable[Snapshot]) -> Snapshot:
    """One snapshot of all; those that are given stay as they are."""
    total: Snapshot = {}
    for each in snapshots:
        for name, (across, rows) in each.items():
            into = total.setdefault(name, (across, {}))[1]
            for values, row in rows.items():
                known = into.get(values)
                into[values] = row if known is None else _one(across, known, row)
    return total


def departed(last: Snapshot, namespace: str = "inference") -> Snapshot:
    """What stays of a process that is gone: its counts.

    What was in flight in its last snapshot was never answered, and ends here as an error, of a route that nobody knows
    any more.
    """
    stays: Snapshot = {name: family for name, family in last.items() if family[0] == "count"}
    _, in_flight = last.get(f"{namespace}_requests_in_flight", ("sum", {}))
    lost = sum(cell[0] for cell, _ in in_flight.values())
    if not lost:
        return stays
    ended: Snapshot = {
        f"{namespace}_requests": ("count", {(OTHER, OTHER, "", "500", "error"): ([lost], {})}),
        f"{namespace}_errors": ("count", {(OTHER, "", DIED): ([lost], {})}),
    }
    return merged([stays, ended])


def copies_of(
    sets: Iterable[FamilySet], total: Snapshot, known: dict[tuple[str, tuple[str, ...]], Series]
) -> dict[FamilySet, SetCopy]:
    """`total` in the form that is rendered; `known` keeps a `Series` for each of its rows from scrape to scrape."""
    copies: dict[FamilySet, SetCopy] = {}
    for families in sets:
        copy = copies[families] = []
        for family in families.families:
            rows = []
            for values, (cell, exemplars) in total.get(family.name, ("count", {}))[1].items():
                series = known.setdefault((family.name, values), Series(values, []))
                rows.append((series, cell, exemplars))
            copy.append((family, rows))
    return copies


def _one(across: Across, first: Row, second: Row) -> Row:
    cell, exemplars = first
    other, others = second
    if across in ("max", "min"):
        choose = max if across == "max" else min
        return [choose(pair) for pair in zip(cell, other, strict=True)], exemplars
    newest = {**exemplars}
    for position, exemplar in others.items():
        rival = newest.get(position)
        if rival is None or float(rival.timestamp or 0) < float(exemplar.timestamp or 0):
            newest[position] = exemplar
    return [one + another for one, another in zip(cell, other, strict=True)], newest
