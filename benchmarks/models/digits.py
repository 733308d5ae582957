"""How is the demo model made? Trains it again and writes `src/redserve/demo/`, from data inside scikit-learn.

    python benchmarks/models/digits.py [FOLDER]

A perceptron of one hidden layer, written with the onnx helper alone. The same scikit-learn gives the same file; another
one may round differently. Needs the `dev` extra.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

DEMO = Path(__file__).parents[2] / "src" / "redserve" / "demo"
GREY_LEVELS = 16.0
HIDDEN = 64

Split = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def split() -> tuple[Split, Split]:
    """The 1,797 images as (training, held out), each `(pixels (n, 64) float32 of 0..16, labels (n,) int64)`.

    Every fourth image is held out: 450 that the model never saw, from all writers.
    """
    pixels, labels = load_digits(return_X_y=True)
    pixels = pixels.astype(np.float32)
    is_held_out = np.arange(len(labels)) % 4 == 0
    return (pixels[~is_held_out], labels[~is_held_out]), (pixels[is_held_out], labels[is_held_out])


def held_out() -> Split:
    """The images the model never saw, and their labels."""
    return split()[1]


def build() -> ModelProto:
    """Train and write the graph: scaling, two layers, softmax and the label."""
    (train_pixels, train_labels), (test_pixels, test_labels) = split()
    network = MLPClassifier((HIDDEN,), max_iter=400, random_state=0)
    network.fit(train_pixels / GREY_LEVELS, train_labels)
    accuracy = network.score(test_pixels / GREY_LEVELS, test_labels)
    weights: dict[str, Any] = {"grey_levels": np.float32(GREY_LEVELS)}
    for layer, (weight, bias) in enumerate(zip(network.coefs_, network.intercepts_, strict=True), start=1):
        weights[f"weight_{layer}"] = weight.astype(np.float32)
        weights[f"bias_{layer}"] = bias.astype(np.float32)
    nodes = [
        helper.make_node("Div", ["pixels", "grey_levels"], ["scaled"]),
        helper.make_node("Gemm", ["scaled", "weight_1", "bias_1"], ["sums"]),
        helper.make_node("Relu", ["sums"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "weight_2", "bias_2"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=-1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 64])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10]),
            helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name="redserve",
        model_version=1,
        doc_string="Handwritten digits: 8x8 images, row by row, grey levels 0 to 16, to the digit they show.",
    )
    helper.set_model_props(
        model,
        {
            "labels": ",".join(str(digit) for digit in range(10)),
            "test_accuracy": f"{accuracy:.4f}",
            "data": "scikit-learn load_digits (UCI optical recognition of handwritten digits), every fourth held out",
        },
    )
    checker.check_model(model, full_check=True)
    return model


def samples() -> list[dict[str, Any]]:
    """The first held-out image of each digit, as a client would send it."""
    pixels, labels = held_out()
    first = [int(np.argmax(labels == digit)) for digit in range(10)]
    return [{"label": int(labels[i]), "pixels": pixels[i].astype(int).tolist()} for i in first]


def main(folder: Path) -> None:
    """Write both files."""
    model = build()
    (folder / "digits.onnx").write_bytes(model.SerializeToString())
    rows = ",\n".join("  " + json.dumps(sample) for sample in samples())
    (folder / "samples.json").write_text(f"[\n{rows}\n]\n")
    print({entry.key: entry.value for entry in model.metadata_props}, (folder / "digits.onnx").stat().st_size, "bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DEMO)
