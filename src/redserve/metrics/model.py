"""Which models are here, what runs them, and whether they are ready."""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry

from redserve.metrics.cells import Gauge
from redserve.metrics.families import FamilySet, shared_families


class ModelMetrics:
    """The model instruments of one registry and namespace; however often it is made, the numbers are the same ones.

    Args:
        registry: Where the families are registered; `None` is prometheus_client's default registry.
        namespace: What the names begin with.
        info_labels: The labels of `<namespace>_model_info` beside model, version and provider.

    Raises:
        ValueError: The registry has these families with other settings, or from elsewhere.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        namespace: str = "inference",
        info_labels: Sequence[str] = ("batching", "max_batch_size"),
    ) -> None:
        self._families = shared_families(_ModelFamilies, registry, namespace, info_labels=tuple(info_labels))

    def info(self, model: str, version: str, provider: str, **labels: str) -> None:
        """Describe a loaded model; a second description of the same version takes the place of the first.

        Args:
            model: Its name.
            version: Its version.
            provider: The execution provider that really came up.
            labels: A value for each of `info_labels`.

        Raises:
            ValueError: `labels` are not exactly `info_labels`.
        """
        families = self._families
        if labels.keys() != set(families.info_labels):
            raise ValueError(f"info takes the labels {families.info_labels}, got {tuple(labels)}")
        values = (model, version, provider, *(labels[name] for name in families.info_labels))
        families.forget_info(model, version)
        families.info.series(*values).cell[0] = 1
        families.described[model, version] = values

    def ready(self, model: str, version: str, is_ready: bool) -> None:
        """Say whether the model takes requests."""
        self._families.ready.series(model, version).cell[0] = int(is_ready)

    def inline(self, model: str, version: str, is_inline: Callable[[], bool]) -> None:
        """Say, at each scrape anew, whether the model's batches run on the event loop."""
        families = self._families
        stop = families.inline_watches.pop((model, version), None)
        if stop is not None:
            stop()
        families.inline_watches[model, version] = families.inline.watch(is_inline, model, version)

    def remove(self, model: str, version: str) -> None:
        """Take an unloaded model out of the exposition; one that is not there is no mistake."""
        self._families.forget_info(model, version)
        self._families.ready.remove(model, version)
        stop = self._families.inline_watches.pop((model, version), None)
        if stop is not None:
            stop()


class _ModelFamilies(FamilySet):
    """What all ModelMetrics of one registry and namespace write."""

    def __init__(self, namespace: str, *, info_labels: tuple[str, ...]) -> None:
        self.info_labels = info_labels
        self.info = Gauge(
            f"{namespace}_model_info",
            "The models that are loaded, and what runs them; always 1.",
            ("model", "version", "provider", *info_labels),
            across="max",
        )
        self.ready = Gauge(
            f"{namespace}_model_ready", "Whether the model takes requests: 1 or 0.", ("model", "version"), across="min"
        )
        self.inline = Gauge(
            f"{namespace}_model_inline",
            "Whether the model's batches run on the event loop: 1, or 0 for threads of their own.",
            ("model", "version"),
            across="min",
        )
        super().__init__((self.info, self.ready, self.inline))
        self.inline_watches: dict[tuple[str, str], Callable[[], None]] = {}
        self.described: dict[tuple[str, str], tuple[str, ...]] = {}

    def forget_info(self, model: str, version: str) -> None:
        """Remove the description of this version, if there is one."""
        values = self.described.pop((model, version), None)
        if values is not None:
            self.info.remove(*values)
