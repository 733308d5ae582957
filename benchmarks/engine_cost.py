"""What does the engine room cost around a run of the digits, what do two threads bring, and what does the event loop
do for one large request?

    python benchmarks/engine_cost.py [--quick]

Needs the `dev` extra. Prints, and writes benchmarks/results/engine_cost.json.
"""

import argparse
import asyncio
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import orjson
from onnx import TensorProto, helper, numpy_helper, save

from redserve import demo
from redserve.engine import OnnxRuntimeEngine, RowRunner, check_tensors, group_of
from redserve.models import ServedModel
from redserve.protocol import PredictJson

RESULT = Path(__file__).parent / "results" / "engine_cost.json"


def best_us(call: Callable[[], object], *, number: int = 5000) -> float:
    return min(timeit.repeat(call, number=number, repeat=7)) / number * 1e6


def perceptron(folder: Path) -> Path:
    """512 - 1024 - 1024 - 10, 1.6 M parameters."""
    random = np.random.default_rng(0)
    weights = [random.standard_normal(s).astype(np.float32) * 0.03 for s in ((512, 1024), (1024, 1024), (1024, 10))]
    nodes, tensor = [], "x"
    for i in range(3):
        nodes.append(helper.make_node("MatMul", [tensor, f"w{i}"], [f"sum{i}"]))
        tensor = f"layer{i}" if i < 2 else "y"
        nodes.append(helper.make_node("Relu", [f"sum{i}"], [tensor]))
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 512])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)],
    )
    save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "perceptron.onnx"
    )
    return folder / "perceptron.onnx"


def around_a_run() -> dict[str, float]:
    """Microseconds of each step on the way of a request of one row, and of batches of such requests."""
    engine = OnnxRuntimeEngine.load(demo.path(), device="cpu", intra_op_threads=1)
    bound = OnnxRuntimeEngine.load(demo.path(), device="cpu", intra_op_threads=1, io_binding=True)
    session = onnxruntime.InferenceSession(demo.path(), providers=["CPUExecutionProvider"])
    runner, random = RowRunner(engine, 64), np.random.default_rng(0)
    row = {"pixels": random.random((1, 64), np.float32)}
    steps: dict[str, Callable[[], object]] = {
        "check_tensors": lambda: check_tensors(engine.inputs, row, row_wise=True, finite=True),
        "check_tensors without finite": lambda: check_tensors(engine.inputs, row, row_wise=True, finite=False),
        "group_of": lambda: group_of(row),
        "run, 1 row": lambda: engine.run(row),
        "run by I/O binding, 1 row": lambda: bound.run(row),
        "io_binding()": session.io_binding,
        "the same without gpu_graph_id": lambda: run_bound(session, row),
        "isfinite by count_nonzero": lambda: np.count_nonzero(np.isfinite(row["pixels"])) == 64,
        "isfinite by all": lambda: np.isfinite(row["pixels"]).all(),
    }
    for size in (1, 8, 32, 64):
        requests = [{"pixels": random.random((1, 64), np.float32)} for _ in range(size)]
        batch = {"pixels": random.random((size, 64), np.float32)}
        steps[f"RowRunner, {size} requests"] = lambda requests=requests: runner(requests)
        steps[f"run, {size} rows"] = lambda batch=batch: engine.run(batch)
    return {name: round(best_us(step), 2) for name, step in steps.items()}


def run_bound(session: onnxruntime.InferenceSession, row: dict[str, np.ndarray]) -> None:
    """As the engine does, but for saying that no CUDA graph is wanted."""
    binding = session.io_binding()
    binding.bind_cpu_input("pixels", row["pixels"])
    for output in ("probabilities", "label"):
        binding.bind_output(output, "cpu")
    session.run_with_iobinding(binding, onnxruntime.RunOptions())
    binding.copy_outputs_to_cpu()


def a_large_request() -> dict[str, float]:
    """Milliseconds for a request of the most rows that may wait: decoded in a thread, the rest is on the event loop."""
    model = ServedModel("digits", lambda: OnnxRuntimeEngine.load(demo.path(), device="cpu", intra_op_threads=1))
    drawn = np.random.default_rng(0).random((1024, 64)).round(3)
    body = orjson.dumps({"instances": drawn.tolist()})

    async def ask() -> tuple[float, float, float]:
        rows = drawn.astype(np.float32)
        answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        start_s = time.perf_counter()
        model.infer({"pixels": rows}, answered.set_result)
        turns_s = [time.perf_counter()]
        while not answered.done():
            await asyncio.sleep(0)
            turns_s.append(time.perf_counter())
        longest_s = max(end_s - begin_s for begin_s, end_s in itertools.pairwise(turns_s))
        return turns_s[0] - start_s, longest_s, turns_s[-1] - start_s

    async def ask_often() -> tuple[list[float], PredictJson]:
        await model.load()
        codec = PredictJson(model.engine.inputs, model.engine.outputs, row_wise=True, row_wise_reason="")
        times_s = [await ask() for _ in range(9)]
        await model.drain()
        return [statistics.median(times) * 1000 for times in zip(*times_s, strict=True)], codec

    (submit_ms, turn_ms, total_ms), codec = asyncio.run(ask_often())
    measured = {
        f"decode {len(body) / 2**20:.1f} MiB of JSON": best_us(lambda: codec.decode(body), number=1) / 1000,
        "infer: check, split, queue": submit_ms,
        "longest turn until the answer": turn_ms,
        "from infer to the answer": total_ms,
    }
    return {name: round(ms, 2) for name, ms in measured.items()}


def threads() -> list[dict[str, float | str]]:
    """Runs with one and two threads, with the other core free and busy, interleaved."""
    measured: list[dict[str, float | str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for busy, (name, path), count, rows in itertools.product(
            (0, 1), (("digits", demo.path()), ("perceptron", perceptron(Path(folder)))), (1, 2), (1, 8, 16, 64)
        ):
            engine = OnnxRuntimeEngine.load(path, device="cpu", intra_op_threads=count)
            (spec,) = engine.inputs
            batch = {spec.name: np.random.default_rng(0).random((rows, spec.shape[1]), np.float32)}
            others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
            times_us: list[float] = []
            until_s = time.perf_counter() + 0.5
            while time.perf_counter() < until_s:
                start_s = time.perf_counter()
                engine.run(batch)
                times_us.append((time.perf_counter() - start_s) * 1e6)
            for other in others:
                other.kill()
                other.wait()
            best, median, p99 = min(times_us), statistics.median(times_us), statistics.quantiles(times_us, n=100)[-1]
            measured.append(
                {"model": name, "threads": count, "busy_cores": busy, "rows": rows}
                | {"best_us": round(best, 1), "median_us": round(median, 1), "p99_us": round(p99, 1)}
            )
    return measured


def main() -> None:
    """Measure, print and write `benchmarks/results/engine_cost.json`."""
    parser = argparse.ArgumentParser(description="What does the engine cost?")
    parser.add_argument("--quick", action="store_true", help="a smoke test: writes nothing")
    options = parser.parse_args()
    machine = f"Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}, {os.cpu_count()} cores"
    result = {"machine": machine, "around_a_run_best_us": around_a_run()}
    result |= {"a_large_request_best_ms": a_large_request(), "threads": threads()}
    print(machine)
    for name, cost_us in result["around_a_run_best_us"].items():
        print(f"{name:30} {cost_us:7.2f} us")
    for name, cost_ms in result["a_large_request_best_ms"].items():
        print(f"{name:30} {cost_ms:7.2f} ms")
    for point in result["threads"]:
        print("   ".join(f"{key} {value}" for key, value in point.items()))
    if not options.quick:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
