"""What to do next about the versions of one model: pure.

    wanted        held                                     next
    {2}           1 ready                                  Add 2
    {2}           1 ready, 2 waiting                       Load 2
    {2}           1 ready, 2 loading                       nothing: 1 serves
    {2}           1 ready, 2 ready                         Unload 1
    {2}           1 ready, 2 failed                        nothing: 1 goes on serving
    {}            1 ready                                  Unload 1

A version whose files have changed is another one of the same number: it loads beside the old one, and takes its place.

Whoever does what this says, until it says nothing, has no more versions serving than are wanted, and never none where
one that was good is at hand: what is no longer wanted stays as long as it stands in for one that is not ready.

Source: the availability-preserving policy of TensorFlow Serving (`core/availability_preserving_policy.h`).
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, Protocol, TypeVar


class Stage(Enum):
    """How far a held version has come."""

    WAITING = "waiting"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


class Standing(Protocol):
    """A version that is held."""

    @property
    def version(self) -> str:
        """Its number, as text."""

    @property
    def fingerprint(self) -> Hashable:
        """What tells its files from others of the same number."""

    @property
    def stage(self) -> Stage:
        """How far it has come."""


H = TypeVar("H", bound=Standing)


@dataclass(frozen=True)
class Add:
    """Begin to hold this version: it waits to be loaded."""

    version: str


@dataclass(frozen=True)
class Load(Generic[H]):
    """Load what waits."""

    held: H


@dataclass(frozen=True)
class Unload(Generic[H]):
    """Hold it no longer."""

    held: H


def next_action(wanted: Mapping[str, Hashable], held: Sequence[H]) -> Add | Load[H] | Unload[H] | None:
    """The next thing to do, or `None` when there is nothing but to wait.

    Args:
        wanted: The fingerprint of each version that is to serve.
        held: What is there, oldest first.
    """
    surplus = [each for each in held if not _is_wanted(each, wanted)]
    for each in surplus:
        if each.stage in (Stage.WAITING, Stage.FAILED):
            return Unload(each)
    ready = [each for each in held if each.stage is Stage.READY]
    stand_ins = [each for each in surplus if each.stage is Stage.READY]
    if stand_ins and len(ready) > len(wanted):
        return Unload(min(stand_ins, key=lambda each: _worth(each, wanted, ready)))
    for version in sorted(wanted, key=number_of, reverse=True):
        if not any(each.version == version and each.fingerprint == wanted[version] for each in held):
            return Add(version)
    if any(each.stage is Stage.LOADING for each in held):
        return None
    waiting = [each for each in held if each.stage is Stage.WAITING]
    return Load(max(waiting, key=lambda each: number_of(each.version))) if waiting else None


def number_of(version: str) -> tuple[int, str]:
    """What orders versions: 10 comes after 9; what is no number comes first."""
    return (int(version) if version.isdecimal() else -1, version)


def _is_wanted(each: Standing, wanted: Mapping[str, Hashable]) -> bool:
    return each.version in wanted and wanted[each.version] == each.fingerprint


def _worth(each: H, wanted: Mapping[str, Hashable], ready: Sequence[H]) -> tuple[bool, tuple[int, str]]:
    """Who stands in for a version of its own number is kept longest, then the newest."""
    has_successor = any(_is_wanted(other, wanted) and other.version == each.version for other in ready)
    return (each.version in wanted and not has_successor, number_of(each.version))
