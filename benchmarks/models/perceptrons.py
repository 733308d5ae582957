"""Two perceptrons with drawn weights: one that costs nothing beside HTTP, one whose weights outgrow the caches.

small  x (batch, 16)  -64-64-> y (batch, 3)              8 us a run: what is measured is the server around it
wide   x (batch, 256) -2048-2048-2048-> y (batch, 10)    36 MB read a run, whatever its size: batching pays
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from models.graph import FLOAT, Graph
from models.recipe import Arrays, Recipe, Run, require
from onnx import ModelProto

SMALL, WIDE = (16, 64, 64, 3), (256, 2048, 2048, 2048, 10)
CHECKED_ROWS = 33
TOLERANCE = 1e-5


def weights(sizes: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each layer, `(weight, bias)`; scaled so that values keep their size from layer to layer."""
    draw = np.random.default_rng(0)
    return [
        (draw.standard_normal((n_in, n_out), np.float32) / np.float32(n_in**0.5), draw.random(n_out, np.float32))
        for n_in, n_out in pairwise(sizes)
    ]


def build(name: str, sizes: Sequence[int]) -> ModelProto:
    """The graph: Gemm and Relu, the last without."""
    graph, value = Graph(), "x"
    layers = weights(sizes)
    for number, (weight, bias) in enumerate(layers, start=1):
        is_last = number == len(layers)
        value = graph.node(
            "Gemm", value, graph.constant(weight), graph.constant(bias), output="y" if is_last else f"sums_{number}"
        )
        value = value if is_last else graph.node("Relu", value)
    return graph.model(
        name,
        inputs={"x": (FLOAT, ["batch", sizes[0]])},
        outputs={"y": (FLOAT, ["batch", sizes[-1]])},
        doc=f"A perceptron {'-'.join(map(str, sizes))} with drawn weights.",
    )


def rows(sizes: Sequence[int], count: int) -> Arrays:
    """Drawn rows, rounded to three digits as a client would send them."""
    return {"x": np.random.default_rng(1).uniform(-1, 1, (count, sizes[0])).round(3).astype(np.float32)}


def check(sizes: Sequence[int], run: Run) -> str:
    """Against numpy in double precision."""
    given = rows(sizes, CHECKED_ROWS)
    expected = given["x"].astype(np.float64)
    for number, (weight, bias) in enumerate(weights(sizes), start=1):
        expected = expected @ weight + bias
        expected = expected if number == len(sizes) - 1 else np.maximum(expected, 0)
    (found,) = run(given)
    worst = float(np.abs(found - expected).max())
    return require(worst < TOLERANCE, f"within {TOLERANCE:g} of numpy in double precision, {worst:.1e} at the worst")


def perceptron(name: str, sizes: Sequence[int]) -> Recipe:
    """Of one of the two."""
    return Recipe(
        doc=f"perceptron {'-'.join(map(str, sizes))}, drawn weights",
        build=lambda: build(name, sizes),
        check=lambda run: check(sizes, run),
        rows=lambda count: rows(sizes, count),
    )
