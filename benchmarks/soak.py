"""Does the server stay as it is under a long, mixed load with faults? Memory, threads, descriptors, series.

    python benchmarks/soak.py [--minutes 10] [--quick]       needs redserve[dev]; writes benchmarks/results/soak.json

A real `redserve serve`, asked by clients that are right, wrong, slow, greedy or gone (`load/visitor.py`), and by some
whose rows break the model. Every right answer is compared; at the end the clients' counts must equal the server's, what
it held for them must be given back, and SIGTERM must end it with 0.

Flat means, over the second half: the growth by the Theil-Sen slope is within the tolerance of `TOLERANCES`. Not in a
quick run, whose halves are too short for a slope. Exit status 1 if anything of this does not hold.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

from load.known_rows import KnownRows
from load.models import write_breakable
from load.visitor import MAX_BODY_BYTES, QUICK_KINDS, SERVED, SLOW_KINDS, Visitor
from load.watched import Scrape, held_by, read_scrape
from load.wire import Book

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "end_to_end"))
from fetch import fetch
from served import Served

RESULTS = Path(__file__).parent / "results" / "soak.json"
PACKAGES = ["redserve", "fastapi", "httptools", "numpy", "onnxruntime", "prometheus_client", "uvicorn", "uvloop"]
LIMITS = f"--max-body-mib {MAX_BODY_BYTES // 2**20} --body-timeout-s 1 --header-timeout-s 2 --write-timeout-s 1"
ARGUMENTS = f"{LIMITS} --max-queue-rows 10000 --intra-op-threads 1"  # more rows than all visitors can have waiting
QUICK_VISITORS, SLOW_VISITORS = 16, 6
THINK_S = 0.08
SETTLE_S = 10.0
FILLING = ("many_rows_by_column", "scrape", "many_rows_by_column")

TOLERANCES = {"rss_bytes": 0.02, "threads": 0.0, "fds": 0.1, "sockets": 0.1, "series": 0.0}
"""By how much of its median each may grow over the second half."""

GIVEN_BACK = ("fds", "sockets")
"""Must be what they were before the first client came."""


def sample(pid: int, url: str, started_s: float) -> dict[str, float]:
    """What the server holds and shows now."""
    scrape = read_scrape(fetch(f"{url}/metrics"))
    if not scrape.adds_up:
        raise SystemExit(f"a scrape does not add up: {scrape}")
    return {
        "at_s": round(time.monotonic() - started_s, 1),
        **asdict(held_by(pid)),
        "series": scrape.series,
        "received": scrape.received,
        "in_flight": scrape.in_flight,
        "queued_rows": scrape.queued_rows,
    }


async def load(
    server: Served, rows: KnownRows, *, seconds: float, every_s: float
) -> tuple[Book, list[dict[str, float]]]:
    """Let the visitors come until the time is over, and look at the server meanwhile."""
    book, samples = Book(), list[dict[str, float]]()
    port = int(server.url.rpartition(":")[2])
    started_s = time.monotonic()

    async def come(seed: int, kinds: dict[str, int], first: list[str]) -> None:
        visitor, draw = Visitor(port, rows, book, kinds=kinds, seed=seed), random.Random(f"pauses {seed}")
        for kind in first:
            await visitor.visit(kind)
        while time.monotonic() - started_s < seconds:
            await visitor.visit()
            await asyncio.sleep(draw.expovariate(1 / THINK_S))
        await visitor.leave()

    async def fill_pools(seed: int) -> None:
        """Large bodies and scrapes at once: threads, and the memory they keep, are there before they are measured."""
        visitor = Visitor(port, rows, book, kinds=QUICK_KINDS, seed=seed)
        for kind in FILLING:
            await visitor.visit(kind)
        await visitor.leave()

    async def watch() -> None:
        while time.monotonic() - started_s < seconds:
            await asyncio.sleep(every_s)
            samples.append(await asyncio.to_thread(sample, server.process.pid, server.url, started_s))
            if len(samples) % 6 == 0:
                print(samples[-1], f"wrong: {len(book.wrong)}", flush=True)

    await asyncio.gather(*(fill_pools(-1 - seed) for seed in range(2 * QUICK_VISITORS)))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watch())
        for kinds, count in ((QUICK_KINDS, QUICK_VISITORS), (SLOW_KINDS, SLOW_VISITORS)):
            for seed in range(count):
                first = list(kinds)[seed::count]  # so that each kind comes at least once
                tasks.create_task(come(seed + len(kinds), kinds, first))
    return book, samples


def settled(server: Served, before: dict[str, Any]) -> tuple[dict[str, Any], Scrape]:
    """What the server holds once its clients are gone; waits until it is what it was, as long as that may take."""
    deadline_s = time.monotonic() + SETTLE_S
    while True:
        held = asdict(held_by(server.process.pid))
        scrape = read_scrape(fetch(f"{server.url}/metrics"))
        is_back = scrape.in_flight == scrape.queued_rows == 0 and held["sockets"] == before["sockets"]
        if is_back or time.monotonic() > deadline_s:
            return held, scrape
        time.sleep(0.2)


def growth(samples: list[dict[str, float]], key: str) -> float:
    """Growth over the second half, as a part of the median. Source: Theil 1950, Sen 1968."""
    half = samples[len(samples) // 2 :]
    slope = statistics.median(
        (after[key] - before[key]) / (after["at_s"] - before["at_s"]) for before, after in combinations(half, 2)
    )
    return slope * (half[-1]["at_s"] - half[0]["at_s"]) / statistics.median(one[key] for one in half)


def differences(book: Book, scrape: Scrape) -> list[str]:
    """Where the clients' counts are not the server's."""
    ours, theirs = book.answered.copy(), scrape.ended.copy()
    answered, cancelled = (SERVED, "POST", "200"), (SERVED, "POST", "499")
    unsure = theirs[answered] - ours[answered]
    if 0 <= unsure <= book.left_unsure:
        ours[answered] += unsure
        ours[cancelled] += book.left_unsure - unsure
    return [f"{key}: clients {ours[key]}, server {theirs[key]}" for key in ours | theirs if ours[key] != theirs[key]]


def soak(*, seconds: float, every_s: float, is_quick: bool) -> tuple[dict[str, Any], list[str]]:
    """Run it; returns what was found, and what is wrong with it."""
    with tempfile.TemporaryDirectory() as folder:
        model = write_breakable(Path(folder))
        rows = KnownRows(model)
        with Served(str(model), *ARGUMENTS.split()) as server:
            before = asdict(held_by(server.process.pid))
            book, samples = asyncio.run(load(server, rows, seconds=seconds, every_s=every_s))
            after, scrape = settled(server, before)
            server.signal()
            status = server.wait()
            log = server.errors
    wrong = [*dict.fromkeys(book.wrong), *differences(book, scrape)]
    grown = {key: round(growth(samples, key), 5) for key in TOLERANCES}
    if not is_quick:
        wrong += [f"{key} grew by {grown[key]:.1%}" for key, most in TOLERANCES.items() if grown[key] > most]
    wrong += [f"{key}: {before[key]} before, {after[key]} after" for key in GIVEN_BACK if after[key] != before[key]]
    if scrape.in_flight or scrape.queued_rows or not scrape.adds_up:
        wrong.append(f"something is left: {scrape}")
    if status != 0:
        wrong.append(f"SIGTERM ended it with {status}")
    if "Traceback" in log:
        wrong.append(f"a traceback in its log: {log[log.index('Traceback') :][:2_000]}")
    if book.rows_right == 0 or book.kinds.keys() != QUICK_KINDS.keys() | SLOW_KINDS.keys():
        wrong.append(f"not every kind of visit came: {book.kinds}")
    found = {
        "requests": sum(scrape.ended.values()),
        "rows_compared": book.rows_right,
        "visits": dict(book.kinds.most_common()),
        "answers": {" ".join(key): count for key, count in sorted(scrape.ended.items())},
        "exit_status": status,
        "before": before,
        "after": after,
        "growth_of_second_half_ratio": grown,
        "tolerances": TOLERANCES,
        "wrong": wrong,
        "samples": samples,
    }
    return found, wrong


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--quick", action="store_true", help="8 s; check that it works; write nothing")
    options = parser.parse_args()
    seconds, every_s = (7.0, 0.5) if options.quick else (60 * options.minutes, 5.0)
    found, wrong = soak(seconds=seconds, every_s=every_s, is_quick=options.quick)
    print(json.dumps({key: value for key, value in found.items() if key != "samples"}, indent=1))
    print("FLAT, nothing lost" if not wrong else f"NOT FLAT OR WRONG: {len(wrong)} findings")
    if not options.quick:
        facts = {
            "question": "does the server stay as it is under a long, mixed load with faults?",
            "command": f"python benchmarks/soak.py --minutes {options.minutes:g}",
            "server": f"redserve serve digits.onnx {ARGUMENTS}",
            "clients": {"quick": QUICK_VISITORS, "slow": SLOW_VISITORS, "think_s": THINK_S},
            "python": platform.python_version(),
            "machine": {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()},
            "versions": {package: version(package) for package in PACKAGES},
            **found,
        }
        RESULTS.write_text(json.dumps(facts, indent=1) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
