"""The families of one instrument on one registry: registered once, copied together, collected by prometheus_client.

    REDMetrics(registry) ─ shared_families(registry, ...) ─> FamilySet ─ registry.register
                                                                │
             generate_latest(registry), get_sample_value ───> collect()  ─> copy() ─> Metric objects
             metrics_app(registry) ─> copy() on the loop ─> with exposing(copies): collect() steps aside

Starlette builds its middleware stack more than once, and a user may build an instrument wherever he needs it; so the
families belong to the registry, and each instrument made for it writes the same ones.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import MappingProxyType
from typing import TypeVar, cast
from weakref import WeakKeyDictionary

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import Metric

from redserve.metrics.cells import Family, SeriesCopy

SetCopy = list[tuple[Family, list[SeriesCopy]]]
"""Each family of a set with its copied rows, in the order of declaration."""

_NAMESPACE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")


class FamilySet:
    """Families that are written by one instrument and copied in one step.

    A subclass makes its families in `__init__(namespace, **settings)` and hands them up.

    Attributes:
        families: In the order they are exposed.
        settings: What it was made with.
    """

    settings: Mapping[str, object] = MappingProxyType({})

    def __init__(self, families: Iterable[Family]) -> None:
        self.families = tuple(families)

    def copy(self) -> SetCopy:
        """All rows of all families; called on the event loop, they agree with each other."""
        return [(family, family.copy()) for family in self.families]

    def describe(self) -> Iterable[Metric]:
        """The names, for the registry's check of duplicates and for `restricted_registry`."""
        return [family.metric([]) for family in self.families]

    def collect(self) -> Iterable[Metric]:
        """The families as prometheus_client wants them, unless an exposition renders them itself."""
        exposure = _exposure.get()
        if exposure is not None and self in exposure.copies:
            exposure.asked.add(self)
            return _metrics(exposure.copies[self]) if exposure.is_filtered else []
        return _metrics(self.copy())


class Exposure:
    """One scrape by our own exposition, as the family sets see it.

    Attributes:
        copies: The sets that it has copied already.
        is_filtered: Whether the sets give out their copies as Metric objects, for the registry to filter by name.
        asked: Those that the registry asked, so those that are still registered.
    """

    def __init__(self, copies: Mapping[FamilySet, SetCopy], *, is_filtered: bool) -> None:
        self.copies = copies
        self.is_filtered = is_filtered
        self.asked: set[FamilySet] = set()


_exposure: ContextVar[Exposure | None] = ContextVar("redserve_metrics_exposure", default=None)
_sets_by_registry: WeakKeyDictionary[CollectorRegistry, dict[tuple[object, str], FamilySet]] = WeakKeyDictionary()

FamilySetT = TypeVar("FamilySetT", bound=FamilySet)


@contextmanager
def exposing(exposure: Exposure) -> Iterator[None]:
    """While this holds in the current context, the sets in `exposure` step aside when the registry collects."""
    token = _exposure.set(exposure)
    try:
        yield
    finally:
        _exposure.reset(token)


def family_sets(registry: CollectorRegistry) -> list[FamilySet]:
    """The sets that were ever registered on `registry`, oldest first."""
    return list(_sets_by_registry.get(registry, {}).values())


def shared_families(
    make: Callable[..., FamilySetT], registry: CollectorRegistry | None, namespace: str, **settings: object
) -> FamilySetT:
    """The one `make(namespace, **settings)` of this registry (`None`: prometheus_client's default) and namespace.

    Raises:
        ValueError: It is there with other `settings`, the namespace is no metric prefix, or the registry holds foreign
            metrics of the same names.
    """
    if not _NAMESPACE.match(namespace):
        raise ValueError(f"namespace must be letters, digits and underscores, got {namespace!r}")
    registry = REGISTRY if registry is None else registry
    sets = _sets_by_registry.setdefault(registry, {})
    found = sets.get((make, namespace))
    if found is None:
        made = make(namespace, **settings)
        made.settings = settings
        try:
            registry.register(made)
        except ValueError as error:
            message = f"the registry already has {namespace}_... metrics from elsewhere; choose another namespace"
            raise ValueError(f"{message} ({error})") from error
        sets[make, namespace] = made
        return made
    for name, value in settings.items():
        if found.settings[name] != value:
            raise ValueError(
                f"the {namespace}_... metrics of this registry already exist with other {name}; "
                "use the same, another namespace or another registry"
            )
    with suppress(ValueError):  # it is registered already, unless somebody emptied the registry
        registry.register(found)
    return cast(FamilySetT, found)


def _metrics(copy: SetCopy) -> list[Metric]:
    return [family.metric(rows) for family, rows in copy]
