"""What each model is made by: how to build it, how to see that it is right, what to feed it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto

Arrays = Mapping[str, np.ndarray[Any, Any]]
Run = Callable[[Arrays], list[np.ndarray[Any, Any]]]
"""Runs a built model: named inputs to outputs in its order."""


class WrongModel(Exception):
    """A model was built and its answers are not right."""


@dataclass(frozen=True)
class Recipe:
    """One model.

    Attributes:
        doc: What it is.
        build: Makes it; the same packages make the same file.
        check: Compares its answers with what is known of them; returns what was found, raises `WrongModel`.
        rows: So many different rows, by input.
    """

    doc: str
    build: Callable[[], ModelProto]
    check: Callable[[Run], str]
    rows: Callable[[int], Arrays]


def require(holds: bool, claim: str) -> str:
    """`claim`, if it holds.

    Raises:
        WrongModel: It does not.
    """
    if not holds:
        raise WrongModel(f"this does not hold: {claim}")
    return claim
