"""What does it bring that rows of different lengths share a batch, and what does padding cost?

    python benchmarks/length_buckets.py [--model sentence_encoder.onnx]

64 texts of 4 to 128 tokens wait; they are run in batches of up to 8, by each way of choosing who shares one, and each
answer is compared with the one that its text has alone. Without `--model`, an encoder that is made here. Needs the
`dev` extra. Prints, and writes benchmarks/results/length_buckets.json.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Hashable
from pathlib import Path

import numpy as np
import onnxruntime

from redserve.engine import Array, OnnxRuntimeEngine, RowRunner, Tensors, group_of
from redserve.engine.length_probe import judge_lengths
from redserve.engine.lengths import LengthBuckets, Lengths

sys.path.append(str(Path(__file__).parents[1] / "tests" / "engine"))

from onnx_models import attention

RESULT = Path(__file__).parent / "results" / "length_buckets.json"
TEXTS, MEDIAN, SHORTEST, LONGEST, BATCH, TOKENS = 64, 18, 4, 128, 8, 32
COARSE, FINE = (16, 32, 64, 128), (8, 16, 24, 32, 48, 64, 96, 128)
TOLERANCE = 1e-4

Way = Callable[[], list[list[Array]]]


def texts() -> list[Tensors]:
    random = np.random.default_rng(0)
    lengths = np.clip(np.exp(random.normal(np.log(MEDIAN), 0.8, TEXTS)), SHORTEST, LONGEST).astype(int)
    return [text(random.integers(0, TOKENS, (1, length))) for length in lengths]


def text(ids: Array) -> Tensors:
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def padded(row: Tensors, length: int) -> Tensors:
    missing = length - row["input_ids"].shape[1]
    return {name: np.pad(tensor, ((0, 0), (0, missing))) for name, tensor in row.items()}


def ways(engine: OnnxRuntimeEngine, rows: list[Tensors]) -> dict[str, Way]:
    """By name, what runs all texts and returns their answers in order."""
    _, row = judge_lengths(engine, LengthBuckets(sizes=FINE))

    def in_groups(lengths: Lengths | None, key: Callable[[Tensors], Hashable], rows: list[Tensors]) -> Way:
        runner = RowRunner(engine, BATCH, lengths=lengths)

        def run() -> list[list[Array]]:
            groups: dict[Hashable, list[int]] = {}
            for place, each in enumerate(rows):
                groups.setdefault(key(each), []).append(place)
            answers: dict[int, list[Array]] = {}
            for places in groups.values():
                for start in range(0, len(places), BATCH):
                    batch = places[start : start + BATCH]
                    for place, answer in zip(batch, runner([rows[each] for each in batch]), strict=True):
                        if isinstance(answer, Exception):
                            raise answer
                        answers[place] = answer
            return [answers[place] for place in range(len(rows))]

        return run

    def lengths_of(*sizes: int) -> Lengths:
        return judge_lengths(engine, LengthBuckets(sizes=sizes), row=row)[0]

    def to_the_end(sizes: tuple[int, ...]) -> list[Tensors]:
        return [padded(each, next(size for size in sizes if size >= each["input_ids"].shape[1])) for each in rows]

    one = lengths_of(LONGEST)
    coarse, fine = lengths_of(*COARSE), lengths_of(*FINE)
    return {
        "each alone": lambda: [engine.run(each) for each in rows],
        "equal lengths": in_groups(None, group_of, rows),
        "as they came, to the longest": in_groups(one, one.group_of, rows),
        f"buckets of {', '.join(map(str, COARSE))}, to the longest": in_groups(coarse, coarse.group_of, rows),
        f"buckets of {', '.join(map(str, FINE))}, to the longest": in_groups(fine, fine.group_of, rows),
        f"buckets of {', '.join(map(str, COARSE))}, to their end": in_groups(None, group_of, to_the_end(COARSE)),
        f"buckets of {', '.join(map(str, FINE))}, to their end": in_groups(None, group_of, to_the_end(FINE)),
        "each alone, to the end of its bucket": lambda: [engine.run(each) for each in to_the_end(COARSE)],
    }


def measure(path: Path, threads: int, *, rounds: int) -> dict[str, float]:
    """Texts per second, at best, by way."""
    engine = OnnxRuntimeEngine.load(path, device="cpu", intra_op_threads=threads)
    rows = texts()
    alone = [engine.run(each) for each in rows]
    best_s: dict[str, float] = {}
    ways_of = ways(engine, rows)
    for _ in range(rounds):
        for name, run in ways_of.items():
            start_s = time.perf_counter()
            answers = run()
            best_s[name] = min(best_s.get(name, 1e9), time.perf_counter() - start_s)
            check(alone, answers, name)
    return {name: round(TEXTS / seconds, 1) for name, seconds in best_s.items()}


def check(alone: list[list[Array]], answers: list[list[Array]], name: str) -> None:
    """Of outputs with a length, what was padded to the end of a bucket has more than the text itself."""
    for mine, own in zip(answers, alone, strict=True):
        for one, two in zip(mine, own, strict=True):
            cut = one[tuple(slice(size) for size in two.shape)]
            gap = float(np.max(np.abs(cut - two)))
            if gap > TOLERANCE or (one.shape != two.shape and "end" not in name):
                raise SystemExit(f"{name}: an answer is off by {gap}, of shape {one.shape} and not {two.shape}")


def main() -> None:
    """Measure, print and write `benchmarks/results/length_buckets.json`."""
    parser = argparse.ArgumentParser(description="What does it cost that rows of different lengths share a batch?")
    parser.add_argument("--model", type=Path, help="a sentence encoder: input_ids and attention_mask")
    parser.add_argument("--quick", action="store_true", help="a smoke test: writes nothing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.model or attention(Path(folder) / "encoder.onnx", width=16 if options.quick else 384, layers=6)
        measured = {f"{count} threads": measure(path, count, rounds=1 if options.quick else 6) for count in (1, 2)}
    machine = f"Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}, {os.cpu_count()} cores"
    result = {"machine": machine, "model": path.stem, "texts": TEXTS, "batch": BATCH, "texts_per_s": measured}
    print(json.dumps(result, indent=1))
    if not options.quick:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
