"""Small models, each with one trait that an engine has to get right; built by the onnx helper, weights and all."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

Shape = Sequence[int | str | None] | None

_FLOAT, _INT, _TEXT = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
_node = helper.make_node


def save(
    path: Path,
    nodes: Sequence[NodeProto],
    inputs: dict[str, tuple[int, Shape]],
    outputs: dict[str, tuple[int, Shape]],
    weights: dict[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
    metadata: dict[str, str] | None = None,
    external_data: str | None = None,
) -> Path:
    """Write a graph of these nodes."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, *described) for name, described in inputs.items()],
        [helper.make_tensor_value_info(name, *described) for name, described in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    helper.set_model_props(model, metadata or {})
    if external_data:
        onnx.save(model, path, save_as_external_data=True, location=external_data, size_threshold=0)
    else:
        onnx.save(model, path)
    return path


def row_encoding(folder: Path, *, batch: int | str | None = "batch", columns: int = 4) -> Path:
    """`y = 2 x + 1`: every answer tells which row it belongs to."""
    return save(
        folder / "row_encoding.onnx",
        [_node("Mul", ["x", "two"], ["doubled"]), _node("Add", ["doubled", "one"], ["y"])],
        {"x": (_FLOAT, [batch, columns])},
        {"y": (_FLOAT, [batch, columns])},
        {"two": np.float32([2]), "one": np.float32([1])},
    )


def adding(path: Path, amount: float, *, columns: int | str = "columns") -> Path:
    """`y = x + amount`: every answer tells which file it is from."""
    return save(
        path,
        [_node("Add", ["x", "amount"], ["y"])],
        {"x": (_FLOAT, ["batch", columns])},
        {"y": (_FLOAT, ["batch", columns])},
        {"amount": np.float32([amount])},
    )


def heavy(path: Path, *, size: int = 4096) -> Path:
    """A matrix of `size` x `size` that its input is multiplied with: 64 MiB of weights by default."""
    return save(
        path,
        [_node("MatMul", ["x", "weight"], ["y"])],
        {"x": (_FLOAT, ["batch", size])},
        {"y": (_FLOAT, ["batch", size])},
        {"weight": np.random.default_rng(0).random((size, size), np.float32)},
    )


def identity(folder: Path, *, dtype: int = _FLOAT, shape: Shape = ("batch", 4)) -> Path:
    """`y = x`, of any dtype."""
    return save(
        folder / "identity.onnx", [_node("Identity", ["x"], ["y"])], {"x": (dtype, shape)}, {"y": (dtype, shape)}
    )


def text(folder: Path) -> Path:
    """Strings in, strings out."""
    return identity(folder, dtype=_TEXT, shape=["batch"])


def two_outputs_renamed(folder: Path) -> Path:
    """Two integer inputs; two outputs, whose rows carry names that no input knows."""
    return save(
        folder / "two_outputs.onnx",
        [_node("Add", ["a", "b"], ["sum"]), _node("ReduceSum", ["sum", "axis"], ["total"], keepdims=0)],
        {"a": (_INT, ["unk__1", 3]), "b": (_INT, ["unk__2", 3])},
        {"sum": (_INT, ["unk__3", 3]), "total": (_INT, ["unk__4"])},
        {"axis": np.int64([1])},
    )


def token_sum(folder: Path) -> Path:
    """Token ids of any length to their sum: rows and length are open."""
    return save(
        folder / "token_sum.onnx",
        [_node("ReduceSum", ["ids", "axis"], ["total"], keepdims=0)],
        {"ids": (_INT, ["batch", "sequence"])},
        {"total": (_INT, ["batch"])},
        {"axis": np.int64([1])},
    )


def attention(path: Path, *, width: int = 8, layers: int = 1, mask: str = "attention_mask", obeys: bool = True) -> Path:
    """A sentence encoder: of each token what it attends to, and their mean; of both only where the mask is 1.

    Args:
        path: Where it is written.
        width: Of an embedding.
        layers: That tokens attend to each other in.
        mask: Its name.
        obeys: Whether tokens attend to no padding.
    """
    random = np.random.default_rng(0)
    weights = {
        "table": random.standard_normal((32, width), np.float32),
        "scale": np.float32([1 / np.sqrt(width)]),
        "one": np.float32([1]),
        "far": np.float32([1e9 if obeys else 0]),
        "middle": np.int64([1]),
        "last": np.int64([2]),
    }
    nodes = [
        _node("Gather", ["table", "input_ids"], ["tokens_0"]),
        _node("Cast", [mask], ["kept"], to=_FLOAT),
        _node("Sub", ["kept", "one"], ["absent"]),
        _node("Mul", ["absent", "far"], ["distance"]),
        _node("Unsqueeze", ["distance", "middle"], ["bias"]),
    ]
    for layer in range(layers):
        weights |= {f"weight_{layer}": random.standard_normal((width, width), np.float32) / np.float32(np.sqrt(width))}
        nodes += [
            _node("Transpose", [f"tokens_{layer}"], [f"keys_{layer}"], perm=[0, 2, 1]),
            _node("MatMul", [f"tokens_{layer}", f"keys_{layer}"], [f"products_{layer}"]),
            _node("Mul", [f"products_{layer}", "scale"], [f"scaled_{layer}"]),
            _node("Add", [f"scaled_{layer}", "bias"], [f"masked_{layer}"]),
            _node("Softmax", [f"masked_{layer}"], [f"scores_{layer}"], axis=-1),
            _node("MatMul", [f"scores_{layer}", f"tokens_{layer}"], [f"attended_{layer}"]),
            _node("MatMul", [f"attended_{layer}", f"weight_{layer}"], [f"mixed_{layer}"]),
            _node("Tanh", [f"mixed_{layer}"], [f"tokens_{layer + 1}"]),
        ]
    nodes += [
        _node("Identity", [f"tokens_{layers}"], ["tokens"]),
        _node("Identity", [f"scores_{layers - 1}"], ["scores"]),
        _node("Unsqueeze", ["kept", "last"], ["kept_tokens"]),
        _node("Mul", ["tokens", "kept_tokens"], ["own"]),
        _node("ReduceSum", ["own", "middle"], ["sum"], keepdims=0),
        _node("ReduceSum", ["kept", "middle"], ["count"], keepdims=1),
        _node("Div", ["sum", "count"], ["embedding"]),
    ]
    return save(
        path,
        nodes,
        {"input_ids": (_INT, ["batch", "sequence"]), mask: (_INT, ["batch", "sequence"])},
        {
            "tokens": (_FLOAT, ["batch", "sequence", width]),
            "scores": (_FLOAT, ["batch", "sequence", "sequence"]),
            "embedding": (_FLOAT, ["batch", width]),
        },
        weights,
    )


def scalar_input(folder: Path) -> Path:
    """`y = x * factor`, the factor for all rows at once."""
    return save(
        folder / "scalar.onnx",
        [_node("Mul", ["x", "factor"], ["y"])],
        {"x": (_FLOAT, ["batch", 4]), "factor": (_FLOAT, [])},
        {"y": (_FLOAT, ["batch", 4])},
    )


def batch_on_axis_1(folder: Path) -> Path:
    """A state that keeps its rows on axis 1, beside an input that has them on axis 0."""
    return save(
        folder / "state.onnx",
        [_node("ReduceSum", ["state", "axes"], ["summed"], keepdims=0), _node("Add", ["x", "summed"], ["y"])],
        {"x": (_FLOAT, ["batch", 4]), "state": (_FLOAT, ["layers", "batch", 4])},
        {"y": (_FLOAT, ["batch", 4])},
        {"axes": np.int64([0])},
    )


def state_beside_rows(folder: Path) -> Path:
    """Rows on axis 0 of one input; a state of fixed first axis, rows behind it, in the other."""
    return save(
        folder / "state_beside_rows.onnx",
        [_node("ReduceSum", ["state", "axes"], ["summed"], keepdims=0), _node("Add", ["x", "summed"], ["y"])],
        {"x": (_FLOAT, [None, 4]), "state": (_FLOAT, [2, None, 4])},
        {"y": (_FLOAT, [None, 4])},
        {"axes": np.int64([0])},
    )


def empty_input(folder: Path) -> Path:
    """An input that is declared to be empty."""
    return identity(folder, shape=[0, 4])


def time_major(folder: Path) -> Path:
    """`[sequence, batch, 4]`: every output follows axis 0, and yet it is not the batch."""
    return identity(folder, shape=["sequence", "batch", 4])


def nonzero(folder: Path) -> Path:
    """`x [n] float32` gives `y [1, found] int64`: as many as are not 0."""
    nodes = [helper.make_node("NonZero", ["x"], ["y"])]
    return save(folder / "nonzero.onnx", nodes, {"x": (_FLOAT, ["n"])}, {"y": (TensorProto.INT64, [1, "found"])})


def rows_lost(folder: Path) -> Path:
    """Declares a batch, answers one row: a sum over it."""
    return save(
        folder / "rows_lost.onnx",
        [_node("ReduceSum", ["x", "axes"], ["y"], keepdims=1)],
        {"x": (_FLOAT, ["batch", 4])},
        {"y": (_FLOAT, None)},
        {"axes": np.int64([0])},
    )


def baked_batch(folder: Path) -> Path:
    """Declares a dynamic batch, but an exporter left a batch of 1 in a Reshape."""
    return save(
        folder / "baked.onnx",
        [_node("Reshape", ["x", "shape"], ["y"])],
        {"x": (_FLOAT, ["batch", 4])},
        {"y": (_FLOAT, ["batch", 2, 2])},
        {"shape": np.int64([1, 2, 2])},
    )


def mixing(folder: Path, *, batch: int | str = "batch") -> Path:
    """Takes the batch's mean away from each row: answers depend on the neighbours."""
    return save(
        folder / "mixing.onnx",
        [_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1), _node("Sub", ["x", "mean"], ["y"])],
        {"x": (_FLOAT, [batch, 4])},
        {"y": (_FLOAT, [batch, 4])},
    )


def shared_among_rows(folder: Path) -> Path:
    """Divides each row by the number of rows: which neighbours does not matter, how many does."""
    return save(
        folder / "shared.onnx",
        [
            _node("Shape", ["x"], ["rows"], start=0, end=1),
            _node("Cast", ["rows"], ["divisor"], to=_FLOAT),
            _node("Div", ["x", "divisor"], ["y"]),
        ],
        {"x": (_FLOAT, ["batch", 4])},
        {"y": (_FLOAT, ["batch", 4])},
    )


def scaled_by_the_largest(folder: Path) -> Path:
    """Divides all rows by the largest number of them all, where that is above 1: made-up ones are not."""
    return save(
        folder / "scaled.onnx",
        [
            _node("Abs", ["x"], ["sizes"]),
            _node("ReduceMax", ["sizes"], ["largest"], keepdims=0),
            _node("Max", ["largest", "one"], ["divisor"]),
            _node("Div", ["x", "divisor"], ["y"]),
        ],
        {"x": (_FLOAT, ["batch", 4])},
        {"y": (_FLOAT, ["batch", 4])},
        {"one": np.float32(1)},
    )


def positive_sum(folder: Path) -> Path:
    """Adds up all there is, and tells each row whether that is above 0."""
    return save(
        folder / "positive.onnx",
        [
            _node("ReduceSum", ["x"], ["sum"], keepdims=0),
            _node("Greater", ["sum", "zero"], ["is_positive"]),
            _node("Where", ["is_positive", "x", "zero"], ["y"]),
        ],
        {"x": (_FLOAT, ["batch", 4])},
        {"y": (_FLOAT, ["batch", 4])},
        {"zero": np.float32(0)},
    )


def same_as_the_first(folder: Path) -> Path:
    """Compares each text with the first."""
    return save(
        folder / "same.onnx",
        [_node("Gather", ["x", "first"], ["of_the_first"], axis=0), _node("Equal", ["x", "of_the_first"], ["y"])],
        {"x": (_TEXT, ["batch", 1])},
        {"y": (TensorProto.BOOL, ["batch", 1])},
        {"first": np.int64([0])},
        opset=19,
    )


def picky(folder: Path) -> Path:
    """Runs on no input that anyone would make up: it reshapes to a size of 7 rows of 11."""
    return save(
        folder / "picky.onnx",
        [_node("Reshape", ["x", "shape"], ["y"])],
        {"x": (_FLOAT, ["batch", "anything"])},
        {"y": (_FLOAT, [7, 11])},
        {"shape": np.int64([7, 11])},
    )


def only_64_columns(folder: Path) -> Path:
    """Leaves its columns open, and yet takes 64 only."""
    return save(
        folder / "only_64.onnx",
        [_node("MatMul", ["x", "weight"], ["y"])],
        {"x": (_FLOAT, ["batch", "columns"])},
        {"y": (_FLOAT, ["batch", 2])},
        {"weight": np.ones((64, 2), np.float32)},
    )


def hungry(folder: Path) -> Path:
    """`y = 2 x`, and on the way as many zeros as its largest number says; 1e15 are more than can be addressed."""
    return save(
        folder / "hungry.onnx",
        [
            _node("ReduceMax", ["x"], ["largest"], keepdims=0),
            _node("Cast", ["largest"], ["wanted"], to=_INT),
            _node("Reshape", ["wanted", "one"], ["shape"]),
            _node("ConstantOfShape", ["shape"], ["zeros"]),
            _node("ReduceSum", ["zeros"], ["nothing"], keepdims=0),
            _node("Add", ["x", "x"], ["doubled"]),
            _node("Add", ["doubled", "nothing"], ["y"]),
        ],
        {"x": (_FLOAT, ["batch", 2])},
        {"y": (_FLOAT, ["batch", 2])},
        {"one": np.int64([1])},
    )


def slow(folder: Path, *, steps: int = 100_000) -> Path:
    """Multiplies by the identity `steps` times for each unit of its largest number: no time below 1, seconds above."""
    body = helper.make_graph(
        [
            _node("MatMul", ["state_in", "matrix"], ["state_out"]),
            _node("Identity", ["keep_in"], ["keep_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", _INT, []),
            helper.make_tensor_value_info("keep_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_in", _FLOAT, ["batch", 64]),
        ],
        [
            helper.make_tensor_value_info("keep_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_out", _FLOAT, ["batch", 64]),
        ],
    )
    return save(
        folder / "slow.onnx",
        [
            _node("ReduceMax", ["x"], ["largest"], keepdims=0),
            _node("Cast", ["largest"], ["wanted"], to=_INT),
            _node("Mul", ["wanted", "per_unit"], ["steps"]),
            _node("Loop", ["steps", "yes", "x"], ["y"], body=body),
        ],
        {"x": (_FLOAT, ["batch", 64])},
        {"y": (_FLOAT, ["batch", 64])},
        {"matrix": np.eye(64, dtype=np.float32), "yes": np.array(True), "per_unit": np.int64(steps)},
    )
