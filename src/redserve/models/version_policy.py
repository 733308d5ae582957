"""Which of the versions that a model has are to serve."""

from collections.abc import Iterable
from dataclasses import dataclass

from redserve.models.transitions import number_of


@dataclass(frozen=True, kw_only=True)
class VersionPolicy:
    """The newest `latest` ones, or `only` those, or with neither all.

    Raises:
        ValueError: `latest` is not positive, both are given, or `only` names none.
    """

    latest: int | None = 1
    only: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.latest is not None and (self.latest < 1 or self.only is not None):
            raise ValueError(f"latest must be >= 1, and goes without only, got {self.latest}")
        if self.only is not None and not self.only:
            raise ValueError("no version is named")

    def choose(self, versions: Iterable[str]) -> list[str]:
        """Those of `versions` that are to serve, newest first."""
        newest_first = sorted(versions, key=number_of, reverse=True)
        if self.only is not None:
            return [version for version in newest_first if version in self.only]
        return newest_first[: self.latest]
