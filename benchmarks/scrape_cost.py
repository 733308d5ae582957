"""What does it cost to count a request, and to scrape many series? Beside prometheus_client doing the same.

    python benchmarks/scrape_cost.py [--quick]      needs redserve alone; prints a table, writes benchmarks/results/

Rounds of the two are interleaved; each figure is the lowest and the median of its rounds: on a busy machine, trust the
lowest. `loop pause` is the longest time that a busy event loop had to wait for its next turn during one scrape through
`metrics_app`, gzip included.
"""

import argparse
import asyncio
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from redserve.metrics import REDMetrics, latency_buckets, metrics_app
from redserve.metrics.families import family_sets
from redserve.metrics.rendering import render

RESULTS = Path(__file__).parent / "results" / "scrape_cost.json"


def lowest_and_median(
    calls: Mapping[str, Callable[[], object]], *, rounds: int, times: int
) -> dict[str, dict[str, float]]:
    """Seconds a call, of interleaved rounds of `times` calls."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            started_s = time.perf_counter()
            for _ in range(times):
                call()
            taken[name].append((time.perf_counter() - started_s) / times)
    return {name: spread(found) for name, found in taken.items()}


def spread(taken_s: list[float]) -> dict[str, float]:
    return {"lowest": min(taken_s), "median": statistics.median(taken_s)}


def counting(*, rounds: int, times: int) -> dict[str, dict[str, float]]:
    """One request: arrived, in flight, ended, timed."""
    red = REDMetrics(CollectorRegistry())

    def ours() -> None:
        red.received("POST")
        red.finished(route="/predict", method="POST", model="m", code=200, outcome="ok", reason="", duration_s=0.00412)

    registry = CollectorRegistry()
    received = Counter("received", "Arrived.", ["method"], registry=registry).labels("POST")
    in_flight = Gauge("in_flight", "In flight.", registry=registry)
    requests = Counter("requests", "Ended.", ["route", "method", "model", "code", "outcome"], registry=registry).labels(
        "/predict", "POST", "m", "200", "ok"
    )
    latency = Histogram(
        "latency", "Timed.", ["route", "method", "model", "outcome"], registry=registry, buckets=latency_buckets()
    ).labels("/predict", "POST", "m", "ok")

    def with_prometheus_client() -> None:
        received.inc()
        in_flight.inc()
        in_flight.dec()
        requests.inc()
        latency.observe(0.00412)

    calls = {"redserve": ours, "prometheus_client, cached children": with_prometheus_client}
    return lowest_and_median(calls, rounds=rounds, times=times)


def scraping(routes: int, *, rounds: int) -> dict[str, Any]:
    """One scrape of a registry whose `routes` routes were all asked for once."""
    registry = CollectorRegistry()
    red = REDMetrics(registry)
    for route in range(routes):
        red.received("POST")
        red.finished(
            route=f"/v1/predict/{route}",
            method="POST",
            model="",
            code=200,
            outcome="ok",
            reason="",
            duration_s=0.001 * (route % 50),
        )
    sets = family_sets(registry)
    copies = [families.copy() for families in sets]
    series = sum(len(rows) * family.series_per_row for copy in copies for family, rows in copy)
    times = max(1, 3000 // series)
    calls: dict[str, Callable[[], object]] = {
        "copy": lambda: [families.copy() for families in sets],
        "render, text": lambda: b"".join(render(copies, is_openmetrics=False)),
        "render, OpenMetrics": lambda: b"".join(render(copies, is_openmetrics=True)),
        "generate_latest, text": lambda: generate_latest(registry),
        "generate_latest, OpenMetrics": lambda: generate_openmetrics(registry),
    }
    per_series = {
        name: {key: value / series for key, value in found.items()}
        for name, found in lowest_and_median(calls, rounds=rounds, times=times).items()
    }
    return {"series": series, "seconds_per_series": per_series, **asyncio.run(answering(registry, rounds=rounds))}


async def answering(registry: CollectorRegistry, *, rounds: int) -> dict[str, dict[str, float]]:
    """The whole answer through ASGI, with an event loop that is busy with something else."""
    app = metrics_app(registry)
    scope = {"type": "http", "method": "GET", "query_string": b"", "headers": [(b"accept-encoding", b"gzip")]}

    async def send(message: Any) -> None:
        pass

    whole_s, pause_s = [], []
    for _ in range(rounds):
        started_s = turn_s = time.perf_counter()
        longest_s = 0.0
        scrape = asyncio.ensure_future(app(scope, None, send))
        while not scrape.done():
            await asyncio.sleep(0)
            now_s = time.perf_counter()
            longest_s = max(longest_s, now_s - turn_s)
            turn_s = now_s
        whole_s.append(turn_s - started_s)
        pause_s.append(longest_s)
    return {"answer_s": spread(whole_s), "loop_pause_s": spread(pause_s)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of counting a request and of a scrape.")
    parser.add_argument("--quick", action="store_true", help="few rounds, and nothing is written")
    is_quick = parser.parse_args().quick
    rounds = 3 if is_quick else 25

    counted = counting(rounds=rounds, times=2_000 if is_quick else 20_000)
    print("one request counted, ns                    lowest  median")
    for name, found in counted.items():
        print(f"  {name:40}{found['lowest'] * 1e9:7.0f} {found['median'] * 1e9:7.0f}")
    scrapes = [scraping(routes, rounds=rounds) for routes in ((5, 43) if is_quick else (5, 43, 430))]
    for scrape in scrapes:
        print(f"one scrape of {scrape['series']} series, ns a series      lowest  median")
        for name, found in scrape["seconds_per_series"].items():
            print(f"  {name:40}{found['lowest'] * 1e9:7.0f} {found['median'] * 1e9:7.0f}")
        for name, found in (("whole answer", scrape["answer_s"]), ("loop pause", scrape["loop_pause_s"])):
            print(f"  {name + ', us':40}{found['lowest'] * 1e6:7.0f} {found['median'] * 1e6:7.0f}")
    if not is_quick:
        packages = ("prometheus_client", "redserve")
        document = {
            "command": "python benchmarks/scrape_cost.py",
            "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
            "rounds": rounds,
            "counting_s": counted,
            "scraping": scrapes,
        }
        RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
