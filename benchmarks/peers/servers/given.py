"""What a peer's server is told, by its environment, and the one way in which all of them open the model."""

import json
import os
from typing import Any

import numpy as np
import onnxruntime

PORT = int(os.environ.get("PEER_PORT", "8000"))
SETTINGS: dict[str, Any] = json.loads(os.environ.get("PEER_SETTINGS", "{}"))


class Model:
    """ONNX Runtime with the session options that `redserve serve` has: see `redserve/engine/onnx_options.py`."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = SETTINGS.get("threads", 1)
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        path = os.environ["PEER_MODEL"]
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __call__(self, rows: Any) -> np.ndarray:
        """Rows of the one input to rows of the one output."""
        found: np.ndarray = self._session.run(None, {"x": np.asarray(rows, np.float32)})[0]
        return found
