"""Which models are served, and in which state; knows engines and batchers, but neither onnxruntime nor the web.

    folder -> source: wanted versions -> transitions: add, load, unload -> running: who serves under which name
    load_engine() -> Engine -> curve -> largest batch -> warm-up -> Batcher: ready
    infer(tensors) -> entrance: check -> the batcher's queue -> answer, once
    each run -> Monitor -> Health: unhealthy once 3 runs in a row and a probe failed, healthy once one succeeds

Loading runs in a thread of its own (an ONNX session takes seconds), which a shutdown does not wait for.

Decision: failed runs do not take a model out of readiness, a failed probe does. What clients send can make any model
fail (an index out of range, an allocation), and one of them must not have the server taken out of its load balancer.
The probe is the example row, which ran at load; it goes through the same queue and the same thread, so that it hangs
where requests hang, in a batch of its own, so that it does not fail for a neighbour's row. A part of a failed batch
that fails again is no further failure: it is the same one seen closer.

Decision: a new version loads beside the old one, which takes twice the memory for that while. Unloading first would
save it, and turn requests away for seconds, or for good where the new one does not load. Requests go to the new one
from the turn of the loop on in which it is ready; the old one answers what it has taken, and then its memory is freed.

Decision: models share the cores, not a pool of threads. Each has threads for all cores, which sleep while it does, so
none leaves a core idle that it could use. all-MiniLM-L6-v2 and EfficientNet-Lite0, batches of 4, two cores, medians:
alone 153 and 74 runs a second, both busy 90 and 45. With the cores divided, one thread each, they make 113 and 50
together, with p99 a quarter lower, but 120 and 52 alone: `intra_op_threads` is for models that are always busy
together. The one pool that ONNX Runtime can have for all sessions makes 173 and 78 alone but 71 and 36 together, and
takes twice the CPU for ten requests a second, because its threads spin and its Python API cannot stop them; it is there
before the first session of a process or never. With four of each busy the first two are equal, the pool a tenth behind.
`benchmarks/several_models.py`, `benchmarks/results/several_models.json`.

Decision: what appears in a folder that is polled is loaded once two looks in a row saw the same files, since nothing
says of a file that it is complete; so a change counts after one to two poll times.

Decision: a model that is added while the server runs does not make it unready before it has served. Otherwise one
broken upload would take every replica out of its load balancer at once.

Decision: an unhealthy model is served. A request that succeeds is the quickest proof that it works, and whether to send
any is the load balancer's choice, by `/readyz`.
"""

from redserve.models.options import ModelOptions
from redserve.models.repository import ModelRepository, Row
from redserve.models.served_model import ModelState, ServedModel
from redserve.models.source import Folder, Plan
from redserve.models.version_policy import VersionPolicy

__all__ = ["Folder", "ModelOptions", "ModelRepository", "ModelState", "Plan", "Row", "ServedModel", "VersionPolicy"]
