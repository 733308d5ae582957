"""Does the gated linger pay? The real threaded Batcher, with and without it, interleaved.

closed loop    N clients that send the next request as soon as the last is answered; the engine takes
               4 ms + 0.2 ms a row
open loop      Poisson arrivals at a given load of the same engine: here it may cost, and must not cost 1 %

python benchmarks/linger.py [--quick] [--out benchmarks/results/linger.json]
"""

import argparse
import asyncio
import json
import platform
import random
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from redserve.batching import Answer, Batcher, BatchPolicy

FIXED_S, PER_ROW_S, MAX_BATCH_SIZE = 0.004, 0.0002, 32
CAPACITY = MAX_BATCH_SIZE / (FIXED_S + PER_ROW_S * MAX_BATCH_SIZE)


def engine(payloads: list[int]) -> list[int]:
    """Takes the time of a small model on a GPU, and no processor."""
    time.sleep(FIXED_S + PER_ROW_S * len(payloads))
    return payloads


async def closed_loop(*, linger: bool, clients: int, seconds: float, think_s: float) -> dict[str, float]:
    """Requests per second, latency and mean batch of `clients` that wait for each answer."""
    latencies_s: list[float] = []
    batch_rows: list[int] = []
    loop = asyncio.get_running_loop()
    async with Batcher(engine, policy=BatchPolicy(max_batch_size=MAX_BATCH_SIZE, linger=linger)) as batcher:
        ends_s = time.perf_counter() + seconds
        done: list[asyncio.Future[None]] = []

        def client(finished: asyncio.Future[None]) -> None:
            def send() -> None:
                started_s = time.perf_counter()
                if started_s > ends_s:
                    finished.set_result(None)
                    return

                def answered(answer: Answer[int]) -> None:
                    latencies_s.append(time.perf_counter() - started_s)
                    batch_rows.append(answer.batch_rows)
                    if think_s:
                        loop.call_later(think_s * random.uniform(0.5, 1.5), send)
                    else:
                        loop.call_soon(send)

                batcher.submit(1, answered)

            send()

        for _ in range(clients):
            done.append(loop.create_future())
            client(done[-1])
            await asyncio.sleep(random.uniform(0, 0.003))
        await asyncio.gather(*done)
    return summary(latencies_s, batch_rows, seconds)


async def open_loop(*, linger: bool, load: float, seconds: float, seed: int) -> dict[str, float]:
    """Latency at Poisson arrivals of `load` times the capacity."""
    latencies_s: list[float] = []
    batch_rows: list[int] = []
    draw = random.Random(seed)
    async with Batcher(engine, policy=BatchPolicy(max_batch_size=MAX_BATCH_SIZE, linger=linger)) as batcher:
        started_s = time.perf_counter()
        due_s = started_s
        while due_s < started_s + seconds:
            due_s += draw.expovariate(load * CAPACITY)
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))

            def answered(answer: Answer[int], due_s: float = due_s) -> None:
                latencies_s.append(time.perf_counter() - due_s)
                batch_rows.append(answer.batch_rows)

            batcher.submit(1, answered)
    return summary(latencies_s, batch_rows, seconds)


def summary(latencies_s: list[float], batch_rows: list[int], seconds: float) -> dict[str, float]:
    """The numbers of one run."""
    return {
        "per_s": round(len(latencies_s) / seconds, 1),
        "mean_ms": round(statistics.mean(latencies_s) * 1e3, 3),
        "p99_ms": round(statistics.quantiles(latencies_s, n=100)[98] * 1e3, 3),
        "mean_batch_rows": round(statistics.mean(batch_rows), 2),
    }


def measure(quick: bool) -> list[dict[str, Any]]:
    """All cases, each as rounds of A B A B ..."""
    rounds, seconds = (2, 0.5) if quick else (5, 2.0)
    cases: list[dict[str, Any]] = [
        {"loop": "closed", "clients": clients, "think_s": 0.0} for clients in (1, 2, 4, 16, 32, 64)
    ]
    cases += [{"loop": "closed", "clients": clients, "think_s": 0.002} for clients in (4, 32)]
    cases += [{"loop": "open", "load": load} for load in (0.02, 0.1, 0.3, 0.6, 0.9)]
    for case in cases:
        runs: dict[bool, list[dict[str, float]]] = {False: [], True: []}
        for index in range(rounds if case["loop"] == "closed" else 2 * rounds):
            for linger in (False, True):
                if case["loop"] == "closed":
                    run = closed_loop(linger=linger, clients=case["clients"], seconds=seconds, think_s=case["think_s"])
                else:
                    run = open_loop(linger=linger, load=case["load"], seconds=seconds, seed=index)
                runs[linger].append(asyncio.run(run))
        for linger, label in ((False, "greedy"), (True, "linger")):
            case[label] = {key: statistics.median(run[key] for run in runs[linger]) for key in runs[linger][0]}
            case[f"{label}_runs"] = runs[linger]
        before, after = case["greedy"], case["linger"]
        case["per_s_ratio"] = round(after["per_s"] / before["per_s"], 3)
        case["mean_ratio"] = round(after["mean_ms"] / before["mean_ms"], 3)
        label = (
            f"{case['clients']:3} clients, think {case['think_s'] * 1e3:g} ms"
            if "clients" in case
            else f"load {case['load']}"
        )
        print(
            f"{label:26} greedy {before['per_s']:8.1f}/s {before['mean_ms']:7.3f} ms p99 {before['p99_ms']:7.3f}"
            f" x{before['mean_batch_rows']:5.2f}   linger {after['per_s']:8.1f}/s {after['mean_ms']:7.3f} ms"
            f" p99 {after['p99_ms']:7.3f} x{after['mean_batch_rows']:5.2f}   mean x{case['mean_ratio']:.3f}",
            flush=True,
        )
    return cases


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Does the gated linger pay?")
    parser.add_argument("--quick", action="store_true", help="a smoke test: too short for numbers")
    parser.add_argument("--out", type=Path, help="write the runs as JSON")
    options = parser.parse_args()
    cases = measure(options.quick)
    if options.out:
        report = {
            "question": "does the gated linger pay on the real threaded Batcher?",
            "engine": {"fixed_s": FIXED_S, "per_row_s": PER_ROW_S, "max_batch_size": MAX_BATCH_SIZE},
            "versions": {"redserve": version("redserve"), "python": platform.python_version()},
            "machine": {"system": platform.system(), "machine": platform.machine()},
            "cases": cases,
        }
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
