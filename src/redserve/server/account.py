"""What one process has to say of itself, and several as one: its numbers, its statistics, why it is not ready."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from redserve.metrics.merging import Snapshot, departed, merged
from redserve.server.statistics import ModelStatistics


@dataclass(frozen=True)
class Account:
    """Taken in one step on the event loop, so that its parts agree; may be pickled.

    Attributes:
        numbers: Those of the metrics.
        statistics: Those of the Open Inference Protocol, by model and version.
        not_ready: What is not ready, and why.
    """

    numbers: Snapshot = field(default_factory=dict)
    statistics: Mapping[tuple[str, str], ModelStatistics] = field(default_factory=dict)
    not_ready: Mapping[str, str] = field(default_factory=dict)


def total(accounts: Iterable[Account]) -> Account:
    """One account of all."""
    all_ = list(accounts)
    statistics: dict[tuple[str, str], ModelStatistics] = {}
    for account in all_:
        for key, each in account.statistics.items():
            statistics.setdefault(key, ModelStatistics()).add(each)
    not_ready = {name: why for account in all_ for name, why in account.not_ready.items()}
    return Account(merged(account.numbers for account in all_), statistics, not_ready)


class Places:
    """What the workers of each place have counted, those before the present one included.

    The order in which numbers are added stays the same when a worker dies: in another one, a sum of seconds may come
    out lower in its last digit, which Prometheus takes for a restart from zero.
    """

    def __init__(self, count: int) -> None:
        self._departed = [Account()] * count

    def left(self, place: int, last: Account) -> None:
        """A worker is gone that gave this account of itself last."""
        self._departed[place] = total([self._departed[place], left_by(last)])

    def total(self, running: Mapping[int, Account]) -> Account:
        """One account of all, those that are gone and those that run."""
        each = enumerate(self._departed)
        return total(total([departed, running.get(place, Account())]) for place, departed in each)


def left_by(account: Account) -> Account:
    """What stays of a process that is gone."""
    return Account(departed(account.numbers), account.statistics)
