"""`/metrics` as an ASGI app: what Prometheus scrapes.

request ─> negotiate: text 0.0.4 or OpenMetrics 1.0, gzip or not
        ─> copy every cell of ours in one step                          on the event loop: the numbers agree
        ─> collect the user's registry ─> render ours ─> compress       in a thread
        ─> 200, or 500 when one of the user's collectors fails, or 503 when the numbers of several processes are not had
"""

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any
from urllib.parse import parse_qs

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import generate_latest as generate_text
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from redserve.errors import RedserveError
from redserve.metrics.families import Exposure, FamilySet, SetCopy, exposing, family_sets
from redserve.metrics.rendering import render

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_GZIP_LEVEL = 1  # level 9 takes ten times as long for a quarter less
_GZIP_WINDOW = 31  # the largest window, with gzip's header

CopyAll = Callable[[list[FamilySet]], Awaitable[Mapping[FamilySet, SetCopy]]]
"""How the numbers of our own families are had at a scrape."""

logger = logging.getLogger("redserve.metrics")


def metrics_app(registry: CollectorRegistry | None = None, *, copy_all: CopyAll | None = None) -> ASGIApp:
    """An ASGI app that answers every GET and HEAD with the metrics of `registry`.

    It goes wherever it is mounted, or is the endpoint of a `Route`; `REDMiddleware` already answers on `/metrics` with
    it. The format follows `Accept`, gzip follows `Accept-Encoding`, and `?name[]=inference_requests_total&name[]=...`
    leaves out all other samples.
    When a collector of the user's fails, the answer is a 500 that names the exception, so that the target is down in
    Prometheus: a scrape without what it used to hold would look as good as a whole one.

    Args:
        registry: What is exposed; `None` is prometheus_client's default registry.
        copy_all: Where one of several processes answers for all of them: gives their numbers, or raises a
            `RedserveError`, which is the answer then. By default a scrape copies the cells of this one.
    """
    return _MetricsApp(REGISTRY if registry is None else registry, copy_all or _copy_all)


class _MetricsApp:
    """An object, since Starlette's `Route` takes a function for an endpoint of its own kind.

    Scrapes have threads of their own: an application under load may keep every thread of asyncio's default pool busy,
    and that is when one wants to look.
    """

    def __init__(self, registry: CollectorRegistry, copy_all: CopyAll) -> None:
        self._registry = registry
        self._copy_all = copy_all
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="redserve-scrape")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            raise NotImplementedError(f"metrics_app answers HTTP, not {scope['type']}")
        method = scope["method"]
        if method not in ("GET", "HEAD"):
            answer = _plain(405, f"{method} is not allowed here, use GET or HEAD\n", (b"allow", b"GET, HEAD"))
        else:
            answer = await _scrape(self._registry, self._copy_all, self._threads, scope)
        status, headers, body = answer
        headers = [*headers, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})


_Headers = list[tuple[bytes, bytes]]
_Answer = tuple[int, _Headers, bytes]


async def _copy_all(sets: list[FamilySet]) -> Mapping[FamilySet, SetCopy]:
    return {families: families.copy() for families in sets}


async def _scrape(registry: CollectorRegistry, copy_all: CopyAll, threads: Executor, scope: Scope) -> _Answer:
    is_openmetrics = wants_openmetrics(_header(scope, b"accept"))
    is_gzip = takes_gzip(_header(scope, b"accept-encoding"))
    names = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("name[]")
    try:
        copies = await copy_all(family_sets(registry))
        work = partial(_body, registry, copies, names, is_openmetrics=is_openmetrics, is_gzip=is_gzip)
        body = await asyncio.get_running_loop().run_in_executor(threads, work)
    except RedserveError as error:
        return _plain(error.status, f"{error}\n")
    except Exception as error:
        logger.exception("a scrape failed")
        kind = type(error).__name__
        return _plain(500, f"a collector of this registry raised {kind}; the log of redserve.metrics has the details\n")
    headers = [
        (b"content-type", (OPENMETRICS if is_openmetrics else TEXT).encode()),
        (b"vary", b"Accept, Accept-Encoding"),
    ]
    if is_gzip:
        headers.append((b"content-encoding", b"gzip"))
    return 200, headers, body


def _body(
    registry: CollectorRegistry,
    copies: Mapping[FamilySet, SetCopy],
    names: Iterable[str] | None,
    *,
    is_openmetrics: bool,
    is_gzip: bool,
) -> bytes:
    generate = generate_openmetrics if is_openmetrics else generate_text
    exposure = Exposure(copies, is_filtered=names is not None)
    with exposing(exposure):
        theirs = generate(registry if names is None else registry.restricted_registry(names))
    ours = [] if names is not None else [copy for families, copy in copies.items() if families in exposure.asked]
    chunks = chain(render(ours, is_openmetrics=is_openmetrics), [theirs])
    if not is_gzip:
        return b"".join(chunks)
    compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    return b"".join([*map(compressor.compress, chunks), compressor.flush()])


def _plain(status: int, text: str, *headers: tuple[bytes, bytes]) -> _Answer:
    return status, [(b"content-type", b"text/plain; charset=utf-8"), *headers], text.encode()


def _header(scope: Scope, name: bytes) -> str:
    return ",".join(value.decode("latin-1") for key, value in scope["headers"] if key == name)


def wants_openmetrics(accept: str) -> bool:
    """Whether `Accept` names OpenMetrics 1.0, and likes it as much as the text format or more.

    `choose_encoder` of prometheus_client would also answer other versions than 1.0, and ignores the weights.
    """
    weight = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for media_type, parameters in _preferences(accept):
        if media_type == "application/openmetrics-text" and parameters.get("version", "1.0.0") != "1.0.0":
            continue
        if media_type in weight:
            weight[media_type] = max(weight[media_type], _weight(parameters))
    return 0 < weight["application/openmetrics-text"] >= weight["text/plain"]


def takes_gzip(accept_encoding: str) -> bool:
    """Whether `Accept-Encoding` allows gzip (RFC 9110, section 12.5.3)."""
    weights = {coding: _weight(parameters) for coding, parameters in _preferences(accept_encoding)}
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def _preferences(header: str) -> Iterable[tuple[str, Mapping[str, str]]]:
    for item in header.split(","):
        token, *parameters = (part.strip().lower() for part in item.split(";"))
        yield token, dict(_parameter(part) for part in parameters)


def _parameter(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip(), value.strip().strip('"')


def _weight(parameters: Mapping[str, str]) -> float:
    try:
        return float(parameters.get("q", "1"))
    except ValueError:
        return 0.0
