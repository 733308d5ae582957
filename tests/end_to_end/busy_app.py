"""An app in which everything happens that the examples' rules and dashboard look at: each family gets its series.

`/embed` waits for a batched function, `/refused` is turned away, `/broken` raises; the model families are written as
the server writes them.
"""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fetch import Refused
from live_app import LiveApp
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from redserve import BatchMetrics, ModelMetrics, QueueFull, REDMiddleware, batched, set_error, set_model
from redserve.metrics import DeadlineMetrics

MODEL = "embed"
PATHS = ("/embed", "/embed", "/embed", "/refused", "/broken")


def busy_app(registry: CollectorRegistry) -> Starlette:
    """The app, all of whose numbers are in `registry`."""
    models = ModelMetrics(registry)
    models.info(MODEL, "", "CPUExecutionProvider", batching="dynamic", max_batch_size="8")
    models.ready(MODEL, "", True)
    DeadlineMetrics(registry).expect(MODEL)

    @batched(max_batch_size=8, name=MODEL, observer=BatchMetrics(registry))
    def length(texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    async def embed(request: Request) -> PlainTextResponse:
        set_model(request, MODEL)
        return PlainTextResponse(str(await length("a text")))

    async def refused(request: Request) -> PlainTextResponse:
        set_model(request, MODEL)
        set_error(request, QueueFull(waiting=1024, limit=1024))
        return PlainTextResponse("full", status_code=503)

    async def broken(request: Request) -> PlainTextResponse:
        set_model(request, MODEL)
        raise RuntimeError("as it should")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await length.aclose()

    routes = [Route("/embed", embed), Route("/refused", refused), Route("/broken", broken)]
    app = Starlette(routes=routes, lifespan=lifespan)
    app.add_middleware(REDMiddleware, registry=registry)
    return app


def keep_busy(live: LiveApp) -> None:
    """A hundred requests, some at the same time, of every kind."""

    def ask(path: str) -> None:
        try:
            live.get(path)
        except Refused:
            if path == "/embed":
                raise

    with ThreadPoolExecutor(4) as clients:
        list(clients.map(ask, PATHS * 20))


def sample_names(live: LiveApp) -> set[str]:
    """The names of all series in the app's own exposition."""
    families = text_string_to_metric_families(live.get("/metrics"))
    return {sample.name for family in families for sample in family.samples}
