"""Which models are served, and in which state; knows engines and batchers, but neither onnxruntime nor the web.

    load_engine() -> Engine -> curve -> largest batch -> warm-up -> Batcher: ready
    infer(tensors) -> check -> Batcher.submit -> answer, once

Loading runs in a thread of its own (an ONNX session takes seconds), which a shutdown does not wait for.
"""

from redserve.models.repository import ModelRepository
from redserve.models.served_model import ModelOptions, ModelState, ServedModel

__all__ = ["ModelOptions", "ModelRepository", "ModelState", "ServedModel"]
