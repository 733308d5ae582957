"""How should several models of a process share its cores?

    python benchmarks/several_models.py [--models a.onnx b.onnx]

Two models, and four of each, with threads of their own for all cores each (as served), with the cores divided among
those that run, and with the one pool of threads that ONNX Runtime can have for all sessions, which waits for work by
spinning: no option of its Python API says otherwise. Each way has a process of its own. A busy model runs all the time;
a quiet one ten times a second. Without `--models`, a sentence encoder and a matrix that are made here. Needs the
`dev` extra. Prints, and writes benchmarks/results/several_models.json.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

sys.path.append(str(Path(__file__).parents[1] / "tests" / "engine"))

from onnx_models import attention, heavy

RESULT = Path(__file__).parent / "results" / "several_models.json"
CORES = len(os.sched_getaffinity(0))
WAYS = ("all cores each", "cores divided", "one pool")
LOADS = {
    "a busy": ("busy", None),
    "b busy": (None, "busy"),
    "both busy": ("busy", "busy"),
    "a busy, b quiet": ("busy", "quiet"),
    "b busy, a quiet": ("quiet", "busy"),
    "both quiet": ("quiet", "quiet"),
}
EACH_OF_MANY = 4
QUIET_EVERY_S = 0.1
SIZES = {"batch": 4, "sequence": 16}

Load = dict[str, float]


def open_model(path: str, way: str) -> Callable[[], object]:
    """A run of the model on inputs that are made up."""
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    for pool in ("intra", "inter"):
        options.add_session_config_entry(f"session.{pool}_op.allow_spinning", "0")
    if way == "one pool":
        options.use_per_session_threads = False
    else:
        options.intra_op_num_threads = CORES if way == "all cores each" else max(1, CORES // 2)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    random = np.random.default_rng(0)
    feeds = {}
    for each in session.get_inputs():
        shape = [size if isinstance(size, int) else SIZES.get(size, 4) for size in each.shape]
        feeds[each.name] = (
            random.random(shape, np.float32) if each.type == "tensor(float)" else np.ones(shape, np.int64)
        )
    return lambda: session.run(None, feeds)


def run(workers: Sequence[tuple[str, Callable[[], object]]], seconds: float) -> tuple[list[list[float]], float]:
    """The seconds of each worker's runs, and how many cores they took."""
    is_over = threading.Event()
    times_s: list[list[float]] = [[] for _ in workers]

    def work(kind: str, call: Callable[[], object], times_s: list[float]) -> None:
        due_s = time.perf_counter()
        while not is_over.is_set():
            if kind == "quiet":
                due_s += QUIET_EVERY_S
                time.sleep(max(0.0, due_s - time.perf_counter()))
            start_s = time.perf_counter()
            call()
            times_s.append(time.perf_counter() - start_s)

    threads = [threading.Thread(target=work, args=(*each, own)) for each, own in zip(workers, times_s, strict=True)]
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    is_over.set()
    for thread in threads:
        thread.join()
    return times_s, (time.process_time() - start_cpu_s) / (time.perf_counter() - start_s)


def measure(way: str, paths: Sequence[str], seconds: float) -> dict[str, Load]:
    """One way, in this process."""
    if way == "one pool":
        onnxruntime.set_global_thread_pool_sizes(CORES, 1)
    models = {name: open_model(path, way) for name, path in zip("ab", paths, strict=True)}
    for call in models.values():
        call()
    result: dict[str, Load] = {}
    for load, kinds in LOADS.items():
        asked = [(name, kind) for name, kind in zip("ab", kinds, strict=True) if kind is not None]
        times_s, cores = run([(kind, models[name]) for name, kind in asked], seconds)
        result[load] = {"cores": cores}
        for (name, _), own in zip(asked, times_s, strict=True):
            result[load] |= {
                f"{name} runs/s": len(own) / seconds,
                f"{name} p99 ms": 1000 * float(np.quantile(own, 0.99)),
            }
    many = {name: [open_model(path, way) for _ in range(EACH_OF_MANY)] for name, path in zip("ab", paths, strict=True)}
    times_s, cores = run([("busy", call) for calls in many.values() for call in calls], 2 * seconds)
    threads = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Threads"))
    result["four of each busy"] = {
        "cores": cores,
        "a runs/s": sum(map(len, times_s[:EACH_OF_MANY])) / seconds / 2,
        "b runs/s": sum(map(len, times_s[EACH_OF_MANY:])) / seconds / 2,
        "threads of the process": float(threads.split()[1]),
    }
    return result


def medians(rounds: Sequence[dict[str, Load]]) -> dict[str, Load]:
    return {
        load: {key: round(statistics.median(each[load][key] for each in rounds), 2) for key in rounds[0][load]}
        for load in rounds[0]
    }


def main() -> None:
    """Measure, print and write `benchmarks/results/several_models.json`."""
    parser = argparse.ArgumentParser(description="How should several models share the cores?")
    parser.add_argument("--models", nargs=2, metavar="PATH.onnx", help="what takes float32 and int64 inputs")
    parser.add_argument("--quick", action="store_true", help="a smoke test: writes nothing")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    seconds, rounds = (0.2, 1) if options.quick else (2.0, 3)
    if options.way:
        print(json.dumps(measure(options.way, options.models, seconds)))
        return
    with tempfile.TemporaryDirectory() as folder:
        made = options.models or [
            str(attention(Path(folder) / "a.onnx", width=384, layers=6)),
            str(heavy(Path(folder) / "b.onnx", size=2048)),
        ]
        quick = ["--quick"] if options.quick else []
        taken: dict[str, list[dict[str, Load]]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way in WAYS:
                command = [sys.executable, __file__, "--way", way, "--models", *made, *quick]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                taken[way].append(json.loads(done.stdout))
    machine = f"Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}, {os.cpu_count()} cores"
    names = [Path(path).stem for path in options.models or ("encoder.onnx", "matrix.onnx")]
    result = {"machine": machine, "models": names, "median_of": rounds}
    result |= {way: medians(each) for way, each in taken.items()}
    print(json.dumps(result, indent=1))
    if not options.quick:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
