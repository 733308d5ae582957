"""Which models an application serves, and what the metrics show of them.

settings ─> the demo, one file, or a folder ─> ModelRepository ─ changes ─> ModelSeries ─> /metrics
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

from redserve import demo
from redserve.engine.base import Engine
from redserve.metrics import BatchMetrics, DeadlineMetrics, ModelMetrics
from redserve.models import Folder, ModelRepository, ModelState, ServedModel
from redserve.server.model_settings import plan
from redserve.server.settings import Settings
from redserve.server.statistics import Statistics

FORGET_AFTER_S = 300.0
"""The counters of a version that is unloaded stay for that long: Prometheus is to see what they came to."""


class ModelSeries:
    """What the metrics show of models that come and go.

    Label values are the names and versions of models that exist. Of one that is unloaded the gauges go at once, so that
    nobody is alarmed that it is not ready, and the counters and histograms later. The counters of requests, which have
    no version, stay: as many names as there ever were, and at most 100.

    Args:
        registry: Gets the metrics.
        batches: Those of the batchers.
        statistics: Those of the Open Inference Protocol.
        forget_after_s: How long counters stay.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None,
        *,
        batches: BatchMetrics,
        statistics: Statistics,
        forget_after_s: float = FORGET_AFTER_S,
    ) -> None:
        self._models = ModelMetrics(registry)
        self._deadlines = DeadlineMetrics(registry)
        self._batches = batches
        self._statistics = statistics
        self._forget_after_s = forget_after_s
        self._to_forget: dict[tuple[str, str], asyncio.TimerHandle] = {}

    def changed(self, model: ServedModel) -> None:
        """Show its state."""
        timer = self._to_forget.pop((model.name, model.version), None)
        if timer is not None:
            timer.cancel()
        self._deadlines.expect(model.name)
        self._models.ready(model.name, model.version, model.is_ready)
        if model.state is ModelState.READY:
            self._models.inline(model.name, model.version, lambda: model.is_inline)
            self._models.info(
                model.name,
                model.version,
                provider=model.engine.provider,
                batching=model.engine.batchability.mode,
                max_batch_size=str(model.policy.max_batch_size),
            )

    def unloaded(self, name: str, version: str) -> None:
        """Show it no longer."""
        self._models.remove(name, version)
        self._to_forget[name, version] = asyncio.get_running_loop().call_later(
            self._forget_after_s, self._forget, name, version
        )

    def _forget(self, name: str, version: str) -> None:
        del self._to_forget[name, version]
        self._batches.remove(name, version)
        self._statistics.remove(name, version)


def open_repository(
    settings: Settings,
    engines: Mapping[str, Callable[[], Engine]] | None,
    *,
    statistics: Statistics,
    series: ModelSeries,
) -> ModelRepository:
    """The models that `settings` name, or `engines`; none is loaded yet.

    Raises:
        ValueError: The folder cannot be read, or lacks a model that is to be loaded at start; or the platform, which
            asks for one model, has none or several.
    """
    if engines is None and settings.repository is not None:
        folder = Folder(settings.repository, configure=partial(plan, defaults=settings), observer=statistics)
        try:
            return ModelRepository(
                folder=folder,
                mode=settings.repository_mode,
                at_start=[name.strip() for name in settings.load_models.split(",") if name.strip()],
                on_change=series.changed,
                on_unload=series.unloaded,
            )
        except OSError as error:
            raise ValueError(f"repository: {error.filename}: {error.strerror}") from error
    if engines is not None and len(engines) > 1 and settings.platform is not None:
        raise ValueError(f"platform: {settings.platform} asks for one model, and there are {len(engines)}")
    file = settings.model_file() if engines is None else None
    is_demo = engines is None and file is None
    example = {"pixels": np.array([demo.samples()[7]["pixels"]], np.float32)} if is_demo else None
    options = settings.model_options()
    models = (
        ServedModel(name, load, options=options, observer=statistics, example=example)
        for name, load in (engines or _one_file(settings, file or demo.path())).items()
    )
    return ModelRepository(models, on_change=series.changed, on_unload=series.unloaded)


def _one_file(settings: Settings, path: Path) -> dict[str, Callable[[], Engine]]:
    return {settings.name or _name_of(path): partial(settings.load_engine, path)}


def _name_of(path: Path) -> str:
    """The file's name as a model's name: what would need quoting in a URL or a shell becomes `_`."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", path.stem).lstrip("._-") or "model"
