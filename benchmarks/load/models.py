"""ONNX models to load a server with: one that inputs can break, one that takes its time."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from redserve import demo

PICKS = 10
HEAVY_IN, HEAVY_OUT = 16, 4
WIDE, WIDE_LAYERS = 2048, 9
TOKENS, DEEP, DEEP_LAYERS = 32, 512, 6


def write_breakable(folder: Path) -> Path:
    """The digits demo with one more input, `pick`: a row whose `pick` is not in 0..9 breaks the run it is part of.

    `picked (rows,) float32` is its tenth; the look-up behind it is what fails.
    """
    model = onnx.load(demo.path())
    graph = model.graph
    graph.input.append(helper.make_tensor_value_info("pick", TensorProto.INT64, ["batch"]))
    graph.output.append(helper.make_tensor_value_info("picked", TensorProto.FLOAT, ["batch"]))
    graph.initializer.append(numpy_helper.from_array(np.arange(PICKS, dtype=np.float32) / PICKS, "tenths"))
    graph.node.append(helper.make_node("Gather", ["tenths", "pick"], ["picked"], axis=0))
    return _write(model, folder / "digits.onnx")


def write_heavy(folder: Path) -> Path:
    """`x (rows, 16) float32` gives `y (rows, 4)`: some 8 ms and 1.5 ms a row on one thread of a recent core.

    Wide layers read 150 MB of weights for each run, whatever its size: the fixed cost that makes batching pay. Behind
    them each row is cut into tokens, which read few weights and compute much: the cost of a row.
    """
    random = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    constants = [numpy_helper.from_array(np.array([-1, TOKENS, WIDE // TOKENS]), "token_shape")]

    def layer(value: str, rows: int, columns: int) -> str:
        name = f"layer_{len(nodes)}"
        weight = random.standard_normal((rows, columns), np.float32) / np.float32(np.sqrt(rows))
        constants.append(numpy_helper.from_array(weight, f"{name}_weight"))
        nodes.append(helper.make_node("MatMul", [value, f"{name}_weight"], [f"{name}_sum"]))
        nodes.append(helper.make_node("Tanh", [f"{name}_sum"], [name]))
        return name

    value = layer("x", HEAVY_IN, WIDE)
    for _ in range(WIDE_LAYERS):
        value = layer(value, WIDE, WIDE)
    nodes.append(helper.make_node("Reshape", [value, "token_shape"], ["tokens"]))
    value = layer("tokens", WIDE // TOKENS, DEEP)
    for _ in range(DEEP_LAYERS):
        value = layer(value, DEEP, DEEP)
    nodes.append(helper.make_node("ReduceMean", [value], ["row"], axes=[1], keepdims=0))
    nodes.append(helper.make_node("Identity", [layer("row", DEEP, HEAVY_OUT)], ["y"]))
    graph = helper.make_graph(
        nodes,
        "heavy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", HEAVY_IN])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", HEAVY_OUT])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return _write(model, folder / "heavy.onnx")


def _write(model: onnx.ModelProto, path: Path) -> Path:
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
