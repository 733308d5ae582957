"""Writes an ONNX graph node by node: constants and nodes get names of their own, in the order in which they come."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

OPSET, TREE_OPSET = 17, 3
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64

Shapes = Mapping[str, tuple[int, Sequence[int | str]]]
"""Element type and shape, by name."""


class Graph:
    """A graph that grows; `constant` and `node` return the name of what they add."""

    def __init__(self) -> None:
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []

    def constant(self, value: Any) -> str:
        """Add a weight; scalars stay scalars."""
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add an operator with one output."""
        name = output or f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def outputs(self, kind: str, *inputs: str, outputs: Sequence[str], **attributes: Any) -> None:
        """Add an operator with several outputs."""
        self._nodes.append(helper.make_node(kind, inputs, outputs, **attributes))

    def model(self, name: str, *, inputs: Shapes, outputs: Shapes, doc: str) -> ModelProto:
        """The whole, checked."""
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(key, *spec) for key, spec in inputs.items()],
            [helper.make_tensor_value_info(key, *spec) for key, spec in outputs.items()],
            self._constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", TREE_OPSET)],
            ir_version=8,
            producer_name="redserve",
            doc_string=doc,
        )
        checker.check_model(model)
        return model
