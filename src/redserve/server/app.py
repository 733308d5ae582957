"""`create_app()`: the FastAPI application of the reference server, for `redserve serve`, plain uvicorn and embedding.

    Application ┬ PlainDoor: plain requests for inference, where nobody else is to see them
                └ REDMiddleware ─ KeyGuard, where there are keys ─ InferenceDoor ─ FastAPI: /, /livez, /v2, /docs

Models load in the background once the application starts: it answers at once, and `/readyz` says 503 until all are
warm.
"""

import asyncio
import gc
import importlib.metadata
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from prometheus_client import REGISTRY, CollectorRegistry
from starlette.routing import Route

from redserve.engine.base import Engine
from redserve.errors import ModelNotReady
from redserve.metrics import BatchMetrics, DeadlineMetrics, REDMetrics, latency_buckets, metrics_app
from redserve.metrics.cells import Series
from redserve.metrics.exposition import CopyAll
from redserve.metrics.families import FamilySet, SetCopy, family_sets
from redserve.metrics.merging import copies_of, snapshot
from redserve.middleware import REDMiddleware
from redserve.models import ModelRepository
from redserve.server import admin, docs, docs_open_inference, failures, open_inference
from redserve.server.account import Account
from redserve.server.api_keys import Keyring
from redserve.server.application import Application, offline_application
from redserve.server.asgi_door import InferenceDoor
from redserve.server.auth import PROBES, KeyGuard, scope_needed
from redserve.server.bodies import Bodies
from redserve.server.fast_door import FastDoor
from redserve.server.logs import AccessLog, configure_logging
from redserve.server.model_set import ModelSeries, open_repository
from redserve.server.plain_door import PlainDoor
from redserve.server.service import InferenceService
from redserve.server.settings import Settings
from redserve.server.statistics import ModelStatistics, Statistics
from redserve.server.terms import Terms

_GC_THRESHOLD = 10_000
"""New objects between two collections; by ASGI a few dozen requests have CPython's 700, and need no collection."""

Whole = Callable[[], Awaitable[Account]]
"""Asks every process of a server, this one included, for its account as of now, and sums them."""


@dataclass
class Serving:
    """What runs behind one application, at `app.state.redserve`.

    Attributes:
        settings: What it was told.
        repository: Its models.
        service: Runs them.
        keyring: Who may ask for what.
        fast_door: The way to the service past ASGI.
        registry: Has its metrics.
        whole: Speaks for all processes, where there are several.
        owns_process: Nothing else runs in the process: it may be tuned for this.
        draining: Shutting down: still answering, but no longer ready.
        loaded: Set once every model is ready or has failed.
    """

    settings: Settings
    repository: ModelRepository
    service: InferenceService
    keyring: Keyring
    fast_door: FastDoor
    registry: CollectorRegistry
    whole: Whole | None = None
    owns_process: bool = False
    draining: bool = False
    loaded: asyncio.Event = field(default_factory=asyncio.Event)

    def account(self) -> Account:
        """What this process has to say of itself."""
        statistics = self.service.statistics.all()
        return Account(snapshot(family_sets(self.registry)), statistics, dict(self.repository.not_ready()))

    async def not_ready(self) -> dict[str, str]:
        """What is not ready, and why, in all processes; empty when requests are welcome."""
        reasons = dict(self.repository.not_ready())
        if self.whole is not None:
            try:
                reasons |= (await self.whole()).not_ready
            except ModelNotReady as error:
                reasons["workers"] = str(error)
        if self.draining:
            reasons["server"] = "shutting down"
        return reasons

    async def statistics(self) -> Mapping[tuple[str, str], ModelStatistics]:
        """What the models have done so far in all processes, by name and version."""
        return self.service.statistics.all() if self.whole is None else (await self.whole()).statistics


def create_app(
    settings: Settings | None = None,
    *,
    engines: Mapping[str, Callable[[], Engine]] | None = None,
    registry: CollectorRegistry | None = None,
    whole: Whole | None = None,
) -> Application:
    """Make the application.

    Args:
        settings: What to serve and how; from `REDSERVE_*` and its TOML file when not given.
        engines: Your own models by name: each a function that loads an engine, called in a thread, once for each
            instance. Without them, the settings name the models.
        registry: Gets the metrics; prometheus_client's default when not given.
        whole: Where this is one of several processes: speaks for all of them.

    Raises:
        ValueError: A setting, or a file that one names, is wrong.
    """
    owns_process = settings is None
    if settings is None:  # as `uvicorn --factory` calls it: this is the server, and nobody else configures its log
        settings = Settings.load()
        configure_logging(settings.log_level)
    buckets = _buckets(settings)
    batches = BatchMetrics(registry, buckets=buckets)
    statistics = Statistics(batches)
    red = REDMetrics(registry, buckets=_buckets(settings))
    series = ModelSeries(registry, red=red, batches=batches, statistics=statistics)
    repository = open_repository(settings, engines, statistics=statistics, series=series)
    service = InferenceService(repository, terms=_terms(settings, registry), statistics=statistics)
    keyring, aliases = settings.keyring(), settings.aliases()
    fast_door = FastDoor(
        service,
        red=REDMetrics.shared(registry, buckets=buckets),
        keyring=keyring,
        aliases=aliases,
        has_access_log=settings.access_log,
    )
    serving = Serving(
        settings,
        repository,
        service,
        keyring,
        fast_door,
        registry=REGISTRY if registry is None else registry,
        whole=whole,
        owns_process=owns_process,
    )
    app = offline_application(
        title="redserve",
        version=importlib.metadata.version("redserve"),
        description="RED metrics and dynamic batching for ONNX models.",
        redoc_url=None,
        redirect_slashes=False,  # what is not served is a 404, and behind TLS a redirect would name http
        static_url="/docs/assets",
        lifespan=_lifespan,
    )
    app.state.redserve = serving
    app.router.routes.extend(admin.health_routes(aliases))
    app.include_router(admin.router)
    scrape = metrics_app(registry, copy_all=None if whole is None else _copies_of_all(whole))
    for path in ("/metrics", "/metrics/"):
        app.router.routes.append(Route(path, scrape, methods=["GET", "HEAD"], include_in_schema=False))
    app.router.routes.extend(open_inference.routes())
    failures.add_handlers(app)
    app.add_middleware(InferenceDoor, service=service, aliases=aliases)
    if serving.keyring.may_guard:
        app.add_middleware(KeyGuard, keyring=serving.keyring, aliases=aliases)
    if settings.access_log:
        app.add_middleware(AccessLog)
    app.add_middleware(
        REDMiddleware,
        registry=registry,
        buckets=buckets,
        metrics_path=None,
        excluded_paths=("/metrics", "/docs", "/openapi.json", *PROBES, *aliases.health - {aliases.predict}),
    )
    app.plain_door = PlainDoor(
        app.long_way,
        service=service,
        red=red,
        keyring=keyring,
        aliases=aliases,
        has_access_log=settings.access_log,
    )
    _document(app, serving)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    serving: Serving = app.state.redserve

    async def load() -> None:
        await serving.repository.load()
        serving.service.warm_up()
        if serving.owns_process:
            gc.collect()
            gc.freeze()  # what is here stays: no later collection needs to look at it
            gc.set_threshold(_GC_THRESHOLD)
        serving.loaded.set()
        await serving.repository.follow(serving.settings.poll_s)

    tasks = [asyncio.create_task(load()), asyncio.create_task(serving.keyring.follow())]
    try:
        yield
    finally:
        serving.draining = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await serving.repository.drain(grace_s=0)  # connections are closed by now: nobody waits for what still runs


def _copies_of_all(whole: Whole) -> CopyAll:
    known: dict[tuple[str, tuple[str, ...]], Series] = {}

    async def copy_all(sets: list[FamilySet]) -> Mapping[FamilySet, SetCopy]:
        return copies_of(sets, (await whole()).numbers, known)

    return copy_all


def _terms(settings: Settings, registry: CollectorRegistry | None) -> Terms:
    return Terms(
        bodies=Bodies(
            max_body_bytes=settings.max_body_mib * 2**20,
            max_held_bytes=settings.max_queue_mib * 2**20,
            timeout_s=settings.body_timeout_s,
        ),
        deadlines=settings.deadlines(),
        missed=DeadlineMetrics(registry).missed,
        overload_status=settings.overload_status,
    )


def _buckets(settings: Settings) -> tuple[float, ...]:
    slo_ms = settings.latency_slo_ms or settings.slo_ms
    try:
        return latency_buckets(None if slo_ms is None else slo_ms / 1000)
    except ValueError as error:
        raise ValueError(f"latency_slo_ms: {error}") from error


def _document(app: FastAPI, serving: Serving) -> None:
    """Add what the door serves and the keys to the OpenAPI page, as models and keys stand when somebody asks."""
    routes_only = app.openapi

    def openapi() -> dict[str, Any]:
        schema = routes_only()
        models = list(serving.repository)
        aliases = serving.settings.aliases()
        explicit = serving.repository.mode == "explicit"
        inference = docs.predict_paths(models, alias=aliases.predict) if models else {}
        paths = {**inference, **docs_open_inference.paths(models, explicit=explicit), **schema.get("paths", {})}
        if "/" in aliases.health:
            del paths["/"]
        keys = serving.keyring.keys
        return docs.with_keys(
            {**schema, "paths": paths}, lambda path: scope_needed(path, keys, aliases=aliases) is not None
        )

    app.openapi = openapi  # type: ignore[method-assign]
