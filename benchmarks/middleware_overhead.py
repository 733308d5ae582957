"""What does one more middleware cost a request? redserve beside four others, on three kinds of application.

    pip install "redserve[peers]"
    python benchmarks/middleware_overhead.py [--quick]         prints a table, writes benchmarks/results/

One thread, no server and no socket: the application is awaited with a fresh scope, and the CPU time of the thread is
taken. The variants take turns in random order, in rounds short enough to pass between disturbances; `over bare` is the
lowest round over bare's lowest (what the code costs), and the median of the differences within a round (what it costs
on a machine with neighbours). Where a process happens to put its objects moves a figure by 0.2 us, so each case is
measured in several processes: a figure is the median of theirs, and the costs that each found are kept beside it. What
is not installed is skipped. OpenTelemetry and FastAPI's telemetry keep metrics in memory and make no spans.
"""

import argparse
import asyncio
import json
import platform
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from redserve import REDMiddleware

RESULTS = Path(__file__).parent / "results" / "middleware_overhead.json"
WARMING = 10  # requests at the start of a round, untimed: the caches are still full of the variant before
BODY = b'{"x": [5.1, 3.5, 1.4, 0.2]}'
PACKAGES = [
    "redserve",
    "fastapi",
    "starlette",
    "prometheus_client",
    "prometheus-fastapi-instrumentator",
    "starlette_exporter",
    "opentelemetry-sdk",
    "opentelemetry-instrumentation-asgi",
    "opentelemetry-instrumentation-fastapi",
]

App = Callable[..., Awaitable[None]]


class Row(BaseModel):
    x: list[float]


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})


def starlette_app() -> Starlette:
    async def predict(request: Request) -> Response:
        await request.body()
        return Response(b"{}", media_type="application/json")

    return Starlette(routes=[Route("/models/{model}/predict", predict, methods=["POST"])])


def starlette_app_without_body() -> Starlette:
    async def predict(request: Request) -> Response:
        return Response(b"{}", media_type="application/json")

    return Starlette(routes=[Route("/models/{model}/predict", predict, methods=["POST"])])


def fastapi_app(**settings: Any) -> FastAPI:
    app = FastAPI(**settings)

    @app.post("/models/{model}/predict")
    async def predict(model: str, row: Row) -> dict[str, float]:
        return {"y": row.x[0]}

    return app


def bare(app: Any) -> App:
    return app  # type: ignore[no-any-return]


def redserve(app: Any) -> App:
    return REDMiddleware(app, registry=CollectorRegistry())


def instrumentator(app: Any) -> App:
    from prometheus_fastapi_instrumentator import Instrumentator

    Instrumentator(registry=CollectorRegistry()).instrument(app)
    return app  # type: ignore[no-any-return]


def exporter(app: Any) -> App:
    from starlette_exporter import PrometheusMiddleware

    app.add_middleware(PrometheusMiddleware)
    return app  # type: ignore[no-any-return]


def opentelemetry_asgi(app: Any) -> App:
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    return OpenTelemetryMiddleware(app, meter_provider=meter_provider())  # type: ignore[no-any-return]


def opentelemetry_fastapi(app: Any) -> App:
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    FastAPIInstrumentor.instrument_app(app, meter_provider=meter_provider())
    return app  # type: ignore[no-any-return]


def fastapi_telemetry(app: Any) -> App:
    """FastAPI's own takes its settings when the application is made."""
    return fastapi_app(telemetry={"meter_provider": meter_provider(), "tracing": False, "logs": False})


def meter_provider() -> Any:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    return MeterProvider(metric_readers=[InMemoryMetricReader()])


CASES: dict[str, tuple[Callable[[], Any], dict[str, Callable[[Any], App]]]] = {
    "bare ASGI": (
        lambda: asgi_app,
        {"bare": bare, "redserve": redserve, "OpenTelemetry ASGI": opentelemetry_asgi},
    ),
    "Starlette route, body not read": (starlette_app_without_body, {"bare": bare, "redserve": redserve}),
    "Starlette route, body read": (
        starlette_app,
        {
            "bare": bare,
            "redserve": redserve,
            "prometheus-fastapi-instrumentator": instrumentator,
            "starlette-exporter": exporter,
            "OpenTelemetry ASGI": opentelemetry_asgi,
        },
    ),
    "FastAPI route, pydantic body": (
        fastapi_app,
        {
            "bare": bare,
            "redserve": redserve,
            "prometheus-fastapi-instrumentator": instrumentator,
            "starlette-exporter": exporter,
            "OpenTelemetry FastAPI": opentelemetry_fastapi,
            "FastAPI's own telemetry": fastapi_telemetry,
        },
    ),
}


async def one_round(app: App, times: int) -> float:
    """CPU seconds a request."""
    headers = [(b"host", b"test"), (b"content-type", b"application/json"), (b"content-length", b"27")]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start" and message["status"] != 200:
            raise RuntimeError(f"the application answered {message['status']}")

    started_s = 0.0
    for number in range(WARMING + times):
        if number == WARMING:
            started_s = time.thread_time()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/models/digits/predict",
            "raw_path": b"/models/digits/predict",
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 4000),
            "server": ("127.0.0.1", 8000),
            "state": {},
        }
        await app(scope, receive, send)
    return (time.thread_time() - started_s) / times


async def compare(case: str, *, rounds: int, times: int) -> dict[str, dict[str, float]]:
    """Microseconds a request by variant, from interleaved rounds."""
    build, variants = CASES[case]
    apps: dict[str, App] = {}
    for name, watch in variants.items():
        try:
            apps[name] = watch(build())
        except (ImportError, TypeError) as missing:
            print(f"  skipped {name}: {missing}", file=sys.stderr)
    taken: dict[str, list[float]] = {name: [] for name in apps}
    for app in apps.values():
        await one_round(app, times)  # routes, caches and series come into being
    for _ in range(rounds):
        for name in random.sample(list(apps), len(apps)):
            taken[name].append(1e6 * await one_round(apps[name], times))
    lowest = min(taken["bare"])
    return {
        name: {
            "lowest_us": round(min(found), 2),
            "median_us": round(statistics.median(found), 2),
            "over_bare_lowest_us": round(min(found) - lowest, 2),
            "over_bare_median_us": round(
                statistics.median(one - base for one, base in zip(found, taken["bare"], strict=True)), 2
            ),
        }
        for name, found in taken.items()
    }


def in_one_process(case: str, rounds: int, times: int) -> dict[str, dict[str, float]]:
    return asyncio.run(compare(case, rounds=rounds, times=times))


def in_several_processes(case: str, *, processes: int, rounds: int, times: int) -> dict[str, dict[str, Any]]:
    """The median over the processes of each figure, beside the costs that each process found."""
    with ProcessPoolExecutor(max_workers=1, max_tasks_per_child=1, mp_context=get_context("spawn")) as pool:
        runs = [pool.submit(in_one_process, case, rounds, times).result() for _ in range(processes)]
    return {
        name: {figure: round(statistics.median(run[name][figure] for run in runs), 2) for figure in figures}
        | {"over_bare_lowest_us_by_process": [run[name]["over_bare_lowest_us"] for run in runs]}
        for name, figures in runs[0].items()
    }


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, and the result is not written")
    quick = parser.parse_args().quick
    processes, rounds, times = (1, 5, 50) if quick else (7, 500, 40)
    results = {}
    for case in CASES:
        print(f"\n{case:<36}{'lowest':>9}{'median':>9}   over bare: lowest   median   us a request")
        results[case] = in_several_processes(case, processes=processes, rounds=rounds, times=times)
        for name, found in results[case].items():
            print(
                f"  {name:<34}{found['lowest_us']:>9.2f}{found['median_us']:>9.2f}"
                f"{found['over_bare_lowest_us']:>20.2f}{found['over_bare_median_us']:>9.2f}"
            )
    if quick:
        return
    facts = {
        "command": "python benchmarks/middleware_overhead.py",
        "processes": processes,
        "rounds_a_process": rounds,
        "requests_a_round": times,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {package: found for package in PACKAGES if (found := installed(package))},
        "results": results,
    }
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
