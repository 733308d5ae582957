"""Builds what is measured: models in single and half precision, rows, and their right answers.

    cd benchmarks && python -m gpu.prepare DIR [--quick]                 needs redserve[models]; 190 MB

DIR gets `<model>.fp32.onnx`, `<model>.fp16.onnx`, and `<workload>.npz` with rows and `right`: of the perceptron from
numpy in double precision, of the others from ONNX Runtime on the CPU. Whoever measures needs only DIR, no network.
`--quick` builds what needs nothing fetched.
"""

import argparse
import contextlib
import io
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from models.build import RECIPES, built, runner
from models.efficientnet_lite0 import PHOTOGRAPHS, photograph
from models.minilm import VOCABULARY
from models.perceptrons import perceptron, weights
from models.recipe import Arrays
from onnxruntime.transformers.float16 import convert_float_to_float16

MLP = (1024,) * 5
CHECKED = 33
"""Rows, so that no batch size divides them; of images fewer."""
TOKENS = {"minilm_16": 16, "minilm_128": 128}


def prepare_mlp(folder: Path) -> None:
    """Four layers of 1,024."""
    recipe = perceptron("mlp", MLP)
    path = folder / "mlp.fp32.onnx"
    path.write_bytes(recipe.build().SerializeToString(deterministic=True))
    print(f"mlp: {recipe.check(runner(path))}")
    rows = recipe.rows(CHECKED)
    right = rows["x"].astype(np.float64)
    for number, (weight, bias) in enumerate(weights(MLP), start=1):
        right = right @ weight + bias
        right = np.maximum(right, 0) if number < len(MLP) - 1 else right
    keep(folder, "mlp", rows, right)
    halve(path)


def prepare_efficientnet(folder: Path) -> None:
    """The two photographs, and drawn images."""
    path = copy("efficientnet_lite0", folder)
    photographs = np.stack([photograph(name).transpose(2, 0, 1) for name in PHOTOGRAPHS]).astype(np.float32)
    drawn = RECIPES["efficientnet_lite0"].rows(3)["image"]
    rows = {"image": np.concatenate([photographs, drawn])}
    keep(folder, "efficientnet_lite0", rows, runner(path)(rows)[0])
    halve(path)


def prepare_minilm(folder: Path) -> None:
    """Drawn tokens; every third row is padded over its second half."""
    path = copy("minilm", folder)
    for name, tokens in TOKENS.items():
        ids = np.random.default_rng(2).integers(1000, VOCABULARY, (CHECKED, tokens))
        mask = np.ones_like(ids)
        ids[::3, tokens // 2 :] = mask[::3, tokens // 2 :] = 0
        rows = {"input_ids": ids, "attention_mask": mask}
        keep(folder, name, rows, runner(path)(rows)[0])
    halve(path)


def copy(name: str, folder: Path) -> Path:
    """Of a model of the benchmarks, built and checked."""
    path = folder / f"{name}.fp32.onnx"
    path.write_bytes(built(name).read_bytes())
    print(f"{name}: {RECIPES[name].check(runner(path))}")
    return path


def keep(folder: Path, workload: str, rows: Arrays, right: Any) -> None:
    """Rows and right answers."""
    np.savez_compressed(folder / f"{workload}.npz", right=right, **rows)


def halve(path: Path) -> None:
    """The same in half precision; inputs and outputs stay as they are, so clients notice nothing."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of each weight that half precision rounds to the nearest it has
        model = convert_float_to_float16(onnx.load(path), keep_io_types=True)
    onnx.save(model, path.with_name(path.name.replace(".fp32.", ".fp16.")))


def main() -> None:
    """Build, check, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--quick", action="store_true", help="what needs nothing fetched")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    prepare_mlp(options.folder)
    if not options.quick:
        prepare_efficientnet(options.folder)
        prepare_minilm(options.folder)
    files = list(options.folder.iterdir())
    print(f"{len(files)} files, {sum(file.stat().st_size for file in files):,} bytes in {options.folder}")


if __name__ == "__main__":
    sys.exit(main())
