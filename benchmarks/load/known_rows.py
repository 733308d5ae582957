"""Rows whose right answers are known, from a session of our own."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson

from redserve.engine.onnx_runtime import OnnxRuntimeEngine

COUNT = 64
TOLERANCE = 1e-5


class KnownRows:
    """Rows of the breakable digits model (`models.py`), and its answers to them."""

    def __init__(self, model: Path) -> None:
        draw = np.random.default_rng(7)
        self._pixels = draw.integers(0, 17, (COUNT, 64)).astype(np.float32)
        self._pick = draw.integers(0, 10, COUNT)
        engine = OnnxRuntimeEngine.load(model, device="cpu", intra_op_threads=1)
        names = [spec.name for spec in engine.outputs]
        outputs = engine.run({"pixels": self._pixels, "pick": self._pick})
        self._right = dict(zip(names, outputs, strict=True))
        engine.close()

    def instances(self, chosen: list[int], **changes: Any) -> bytes:
        """A body of these rows, one object each; `changes` go into the first."""
        rows: list[dict[str, Any]] = [{"pixels": self._pixels[i].tolist(), "pick": int(self._pick[i])} for i in chosen]
        rows[0] |= changes
        return orjson.dumps({"instances": rows})

    def columns(self, chosen: list[int]) -> bytes:
        """A body of these rows by columns."""
        return orjson.dumps({"inputs": {"pixels": self._pixels[chosen].tolist(), "pick": self._pick[chosen].tolist()}})

    def are_answered(self, chosen: list[int], body: bytes) -> bool:
        """Whether a body answers these rows, in either form."""
        answer = orjson.loads(body)
        if "outputs" in answer:
            outputs = answer["outputs"]
        else:
            outputs = {name: [row[name] for row in answer["predictions"]] for name in answer["predictions"][0]}
        return outputs.keys() == self._right.keys() and all(
            np.allclose(np.asarray(found), self._right[name][chosen], rtol=0, atol=TOLERANCE)
            for name, found in outputs.items()
        )
