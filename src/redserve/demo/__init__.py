"""The demo model: 8x8 handwritten digits to their labels, 20 kB, so that a fresh install has something to serve.

`pixels (batch, 64) float32`, grey levels 0 to 16 row by row, gives `probabilities (batch, 10) float32` and
`label (batch,) int64`. Its labels and its accuracy on images it never saw are in the file's metadata.
`benchmarks/models/digits.py` makes both files.
"""

import json
from importlib.resources import files
from pathlib import Path
from typing import TypedDict

__all__ = ["Sample", "path", "samples"]


class Sample(TypedDict):
    """One image that the model never saw in training.

    Attributes:
        label: The digit it shows.
        pixels: Its 64 grey levels, 0 to 16.
    """

    label: int
    pixels: list[int]


def path() -> Path:
    """Where `digits.onnx` lies."""
    return Path(str(files(__name__) / "digits.onnx"))


def samples() -> list[Sample]:
    """One image of each digit, 0 to 9."""
    loaded: list[Sample] = json.loads((files(__name__) / "samples.json").read_text())
    return loaded
