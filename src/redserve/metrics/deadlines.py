"""Answers that came too late: what goodput is less than the rate of `ok`.

A batch that runs is never given up for a deadline, so its answer is sent, counted `ok`, and counted here as well.
"""

from typing import final

from prometheus_client import CollectorRegistry

from redserve.metrics.cells import Counter
from redserve.metrics.families import FamilySet, shared_families
from redserve.metrics.labels import BoundedValues

_MAX_MODELS = 100


@final
class DeadlineMetrics:
    """The one instrument of one registry and namespace; however often it is made, the numbers are the same ones.

    Args:
        registry: Where the family is registered; `None` is prometheus_client's default registry.
        namespace: What its name begins with.

    Raises:
        ValueError: The registry has this family from elsewhere.
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, namespace: str = "inference") -> None:
        self._families = shared_families(_DeadlineFamilies, registry, namespace)

    def expect(self, model: str) -> None:
        """Show `model` with 0: `rate()` cannot see the first increase of a series that is new."""
        families = self._families
        families.missed.series(families.models.bounded(model))

    def forget_model(self, model: str) -> None:
        """Take a model that is gone out of the exposition; one that is not there is no mistake."""
        self._families.missed.remove(model)
        self._families.models.forget(model)

    def missed(self, model: str) -> None:
        """An answer of `model` was sent after its deadline."""
        families = self._families
        families.missed.series(families.models.bounded(model)).cell[0] += 1


class _DeadlineFamilies(FamilySet):
    """What all DeadlineMetrics of one registry and namespace write."""

    def __init__(self, namespace: str) -> None:
        self.missed = Counter(
            f"{namespace}_deadline_missed", "Answers that were right, and sent after their deadline.", ("model",)
        )
        super().__init__((self.missed,))
        self.models = BoundedValues("model", _MAX_MODELS)
