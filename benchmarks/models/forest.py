"""A random forest of 300 trees on the breast-cancer table inside scikit-learn, written as the ONNX operator for trees.

The operator compares in float32, scikit-learn with thresholds in float64: a threshold is rounded down, so that every
float32 value falls on the same side as there. The same scikit-learn gives the same file.
"""

from collections import defaultdict
from functools import cache
from typing import Any

import numpy as np
from models.graph import FLOAT, INT64, Graph
from models.recipe import Arrays, Recipe, Run, require
from onnx import ModelProto
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier

TREES, FEATURES = 300, 30
LEAST_ACCURACY = 0.94
TOLERANCE = 1e-5


def split() -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """The 569 tumours as (training, held out), each `(features (n, 30) float32, labels)`; every fourth is held out."""
    features, labels = load_breast_cancer(return_X_y=True)
    features = features.astype(np.float32)
    is_held_out = np.arange(len(labels)) % 4 == 0
    return (features[~is_held_out], labels[~is_held_out]), (features[is_held_out], labels[is_held_out])


@cache
def trained() -> RandomForestClassifier:
    """The forest."""
    return RandomForestClassifier(TREES, random_state=0, n_jobs=1).fit(*split()[0])


def build() -> ModelProto:
    """All trees in one node; the label is the larger probability, not the operator's own, which differs in places."""
    forest = trained()
    columns: defaultdict[str, list[Any]] = defaultdict(list)
    for number, estimator in enumerate(forest.estimators_):
        tree = estimator.tree_
        is_leaf = tree.children_left < 0
        count = tree.node_count
        columns["nodes_treeids"] += [number] * count
        columns["nodes_nodeids"] += range(count)
        columns["nodes_featureids"] += np.where(is_leaf, 0, tree.feature).tolist()
        columns["nodes_values"] += np.where(is_leaf, 0, rounded_down(tree.threshold)).tolist()
        columns["nodes_modes"] += ["LEAF" if leaf else "BRANCH_LEQ" for leaf in is_leaf]
        columns["nodes_truenodeids"] += np.where(is_leaf, 0, tree.children_left).tolist()
        columns["nodes_falsenodeids"] += np.where(is_leaf, 0, tree.children_right).tolist()
        shares = tree.value[:, 0] / tree.value[:, 0].sum(axis=1, keepdims=True) / TREES
        for node in np.flatnonzero(is_leaf).tolist():
            for label in range(2):
                columns["class_treeids"].append(number)
                columns["class_nodeids"].append(node)
                columns["class_ids"].append(label)
                columns["class_weights"].append(float(shares[node, label]))
    graph = Graph()
    graph.outputs(
        "TreeEnsembleClassifier",
        "features",
        outputs=["label_of_operator", "probabilities"],
        domain="ai.onnx.ml",
        classlabels_int64s=[0, 1],
        post_transform="NONE",
        **columns,
    )
    graph.node("ArgMax", "probabilities", output="label", axis=-1, keepdims=0)
    return graph.model(
        "forest",
        inputs={"features": (FLOAT, ["batch", FEATURES])},
        outputs={"label": (INT64, ["batch"]), "probabilities": (FLOAT, ["batch", 2])},
        doc="Breast cancer, benign or malignant: a random forest of 300 trees.",
    )


def rounded_down(thresholds: np.ndarray) -> np.ndarray:
    """The largest float32 that does not exceed each."""
    rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def rows(count: int) -> Arrays:
    """Tumours of the table, again from the first when it is over."""
    features, _ = split()[0]
    return {"features": features[np.arange(count) % len(features)]}


def check(run: Run) -> str:
    """Against scikit-learn and against the truth, on tumours that it never saw."""
    features, labels = split()[1]
    found, probabilities = run({"features": features})
    worst = float(np.abs(probabilities - trained().predict_proba(features)).max())
    accuracy = float(np.mean(found == labels))
    return "; ".join(
        (
            require(worst < TOLERANCE, f"within {TOLERANCE:g} of scikit-learn, {worst:.1e} at the worst"),
            require(accuracy >= LEAST_ACCURACY, f"right on {accuracy:.1%} of the tumours that it never saw"),
        )
    )


FOREST = Recipe(doc=f"random forest, {TREES} trees, breast-cancer table", build=build, check=check, rows=rows)
