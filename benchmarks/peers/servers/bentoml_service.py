"""BentoML: a batchable API with its adaptive batcher, which has no setting for the wait."""

import bentoml
import numpy as np
from given import SETTINGS, Model


@bentoml.service(workers=SETTINGS["workers"], traffic={"timeout": 60, "max_concurrency": 100_000})
class Inference:
    """Answers with the bare rows."""

    def __init__(self) -> None:
        self._model = Model()

    @bentoml.api(batchable=True, max_batch_size=SETTINGS["max_batch_size"], max_latency_ms=60_000, route="/predict")
    def predict(self, instances: np.ndarray) -> np.ndarray:
        return self._model(instances)
