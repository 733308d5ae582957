"""What is measured: the models in DIR (see `prepare.py`), each with rows, their right answers, and what may be off.

fp32   single precision, as it is on a CPU
tf32   the same file, products rounded to 10 bits by tensor cores; on a GPU only, and what ONNX Runtime does there
fp16   half precision; inputs and outputs in single
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray[Any, Any]]

MODELS = {
    "mlp": "mlp",
    "efficientnet_lite0": "efficientnet_lite0",
    "minilm_16": "minilm",
    "minilm_128": "minilm",
}
TOLERANCES = {"fp32": 1e-4, "tf32": 1e-2, "fp16": 2e-2}
"""Of an answer's largest number."""


class WrongAnswer(Exception):
    """A figure of a run that answers wrongly is none."""


@dataclass(frozen=True)
class Workload:
    """One model in one precision.

    Attributes:
        name: Which rows.
        precision: `fp32`, `tf32` or `fp16`.
        path: The ONNX file.
        given: Some rows.
        right: The answers to them.
    """

    name: str
    precision: str
    path: Path
    given: Arrays
    right: np.ndarray[Any, Any]

    @property
    def title(self) -> str:
        """As results name it, and a server its model."""
        return f"{self.name}.{self.precision}"

    def rows(self, count: int) -> Arrays:
        """So many, the given ones over and over."""
        return {name: np.take(values, self._numbers(count), axis=0) for name, values in self.given.items()}

    def error_ratio(self, found: np.ndarray[Any, Any]) -> float:
        """How far the answers to `rows(len(found))` are off, at the worst, in parts of the largest right number.

        Raises:
            WrongAnswer: Further than the precision explains.
        """
        right = np.take(self.right, self._numbers(len(found)), axis=0)
        if found.shape != right.shape or not np.isfinite(found).all():
            raise WrongAnswer(f"{self.title}: {found.shape} instead of {right.shape}, or not finite")
        ratio = float(np.abs(found - right).max() / np.abs(right).max())
        if ratio > TOLERANCES[self.precision]:
            raise WrongAnswer(f"{self.title}: off by {ratio:.1e} of the largest, {len(found)} rows")
        return ratio

    def provider_options(self, device: str) -> dict[str, str]:
        """Of the CUDA execution provider."""
        return {"use_tf32": str(int(self.precision == "tf32"))} if device == "cuda" else {}

    def _numbers(self, count: int) -> np.ndarray[Any, Any]:
        return np.arange(count) % len(self.right)


def workloads(folder: Path, device: str, *, precisions: Sequence[str] = ("fp16", "tf32", "fp32")) -> list[Workload]:
    """All that lie in the folder, in this order of precisions.

    Raises:
        FileNotFoundError: None does.
    """
    found = []
    for precision in precisions:
        for name, model in MODELS.items():
            path = folder / f"{model}.{'fp16' if precision == 'fp16' else 'fp32'}.onnx"
            if path.exists() and (precision != "tf32" or device == "cuda"):
                kept: Mapping[str, Any] = np.load(folder / f"{name}.npz")
                given = {key: kept[key] for key in kept if key != "right"}
                found.append(Workload(name, precision, path, given, kept["right"]))
    if not found:
        raise FileNotFoundError(f"{folder} has no models: python -m gpu.prepare {folder}")
    return found
