"""Should an idle engine wait for company? The real Batcher in virtual time, Poisson arrivals, exact and repeatable.

One instance, 4 ms + 0.2 ms a row with 5 % noise, at most 32 rows. For each load the mean and the p99 latency of running
at once, and of waiting up to a fixed delay from the oldest arrival; and how busy the engine was, which is what a delay
buys.

    python benchmarks/greedy_vs_delay.py [--quick] [--out benchmarks/results/greedy_vs_delay.json]
"""

import argparse
import asyncio
import json
import platform
import random
import statistics
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from redserve.batching import Batcher, BatchPolicy

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from batching.virtual_time import run

FIXED_S, PER_ROW_S, MAX_BATCH_SIZE = 0.004, 0.0002, 32
CAPACITY = MAX_BATCH_SIZE / (FIXED_S + PER_ROW_S * MAX_BATCH_SIZE)
DELAYS_S = (0.0, 0.0005, 0.001, 0.002, 0.005, 0.01)
LOADS = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95)


async def serve(load: float, delay_s: float, *, count: int, seed: int) -> dict[str, float]:
    """Latencies of `count` requests, and the share of the time that the engine ran."""
    draw, noise = random.Random(seed), random.Random(seed + 1)
    loop = asyncio.get_running_loop()
    latencies_s: list[float] = []
    busy_s = 0.0

    async def engine(payloads: list[float]) -> list[float]:
        nonlocal busy_s
        service_s = (FIXED_S + PER_ROW_S * len(payloads)) * noise.uniform(0.95, 1.05)
        busy_s += service_s
        await asyncio.sleep(service_s)
        return payloads

    policy = BatchPolicy(max_batch_size=MAX_BATCH_SIZE, max_queue_delay_s=delay_s, max_queue_rows=count)
    batcher: Batcher[float, float] = Batcher(engine, policy=policy, max_run_s=None, clock=loop.time)

    def send(arrived_s: float) -> None:
        batcher.submit(arrived_s, lambda _: latencies_s.append(loop.time() - arrived_s))

    for _ in range(count):
        await asyncio.sleep(draw.expovariate(load * CAPACITY))
        send(loop.time())
    await batcher.aclose()
    return {
        "mean_ms": statistics.mean(latencies_s) * 1e3,
        "p99_ms": statistics.quantiles(latencies_s, n=100)[98] * 1e3,
        "busy_ratio": busy_s / loop.time(),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Should an idle engine wait for company?")
    parser.add_argument("--quick", action="store_true", help="a smoke test: too short for a p99")
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    options = parser.parse_args()
    count, seeds = (1_000, 1) if options.quick else (20_000, 3)

    print("mean / p99 ms (busy), by delay")
    print("load   " + "".join(f"{delay_s * 1e3:>20g} ms" for delay_s in DELAYS_S))
    table: list[dict[str, Any]] = []
    for load in LOADS:
        row = f"{load:<7}"
        for delay_s in DELAYS_S:
            runs = [run(serve(load, delay_s, count=count, seed=seed)) for seed in range(seeds)]
            cell = {key: round(statistics.mean(run[key] for run in runs), 3) for key in runs[0]}
            table.append({"load": load, "delay_ms": delay_s * 1e3, **cell})
            row += f"{cell['mean_ms']:>11.2f} /{cell['p99_ms']:6.2f} {cell['busy_ratio']:4.0%}"
        print(row, flush=True)
    worst = max(
        next(cell["mean_ms"] for cell in table if cell["load"] == load and not cell["delay_ms"])
        / min(cell["mean_ms"] for cell in table if cell["load"] == load and cell["delay_ms"])
        for load in LOADS
    )
    print(f"mean latency of running at once over that of the best delay: at most {worst:.4f}")
    if options.out:
        report = {
            "question": "should an idle engine wait for company?",
            "engine": {"fixed_s": FIXED_S, "per_row_s": PER_ROW_S, "max_batch_size": MAX_BATCH_SIZE, "noise": 0.05},
            "requests": count,
            "seeds": seeds,
            "versions": {"redserve": version("redserve"), "python": platform.python_version()},
            "worst_greedy_over_best_delay": round(worst, 4),
            "table": table,
        }
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
