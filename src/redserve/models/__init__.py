"""Which models are served, and in which state; knows engines and batchers, but neither onnxruntime nor the web.

    load_engine() -> Engine -> curve -> largest batch -> warm-up -> Batcher: ready
    infer(tensors) -> check -> Batcher.submit -> answer, once
    each run -> Monitor -> Health: unhealthy once 3 runs in a row and a probe failed, healthy once one succeeds

Loading runs in a thread of its own (an ONNX session takes seconds), which a shutdown does not wait for.
"""

from redserve.models.options import ModelOptions
from redserve.models.repository import ModelRepository
from redserve.models.served_model import ModelState, ServedModel

__all__ = ["ModelOptions", "ModelRepository", "ModelState", "ServedModel"]
