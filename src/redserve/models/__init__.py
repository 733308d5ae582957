"""Which models are served, and in which state; knows engines and batchers, but neither onnxruntime nor the web.

    load_engine() -> Engine -> curve -> largest batch -> warm-up -> Batcher: ready
    infer(tensors) -> check -> Batcher.submit -> answer, once
    each run -> Monitor -> Health: unhealthy once 3 runs in a row and a probe failed, healthy once one succeeds

Loading runs in a thread of its own (an ONNX session takes seconds), which a shutdown does not wait for.

Decision: failed runs do not take a model out of readiness, a failed probe does. What clients send can make any model
fail (an index out of range, an allocation), and one of them must not have the server taken out of its load balancer.
The probe is the example row, which ran at load; it goes through the same queue and the same thread, so that it hangs
where requests hang, in a batch of its own, so that it does not fail for a neighbour's row. A part of a failed batch
that fails again is no further failure: it is the same one seen closer.

Decision: an unhealthy model is served. A request that succeeds is the quickest proof that it works, and whether to send
any is the load balancer's choice, by `/readyz`.
"""

from redserve.models.options import ModelOptions
from redserve.models.repository import ModelRepository
from redserve.models.served_model import ModelState, ServedModel

__all__ = ["ModelOptions", "ModelRepository", "ModelState", "ServedModel"]
