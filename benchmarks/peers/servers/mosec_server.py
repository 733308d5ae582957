"""Mosec: HTTP and the queue in Rust, workers in Python; JSON by orjson, as its documentation advises."""

from typing import Any

import orjson
from given import SETTINGS, Model
from mosec import Server, Worker


class Inference(Worker):
    """A batch of bodies to a batch of answers."""

    def __init__(self) -> None:
        super().__init__()
        self._model = Model()

    def deserialize(self, data: bytes) -> Any:
        return orjson.loads(data)

    def serialize(self, data: Any) -> bytes:
        return orjson.dumps(data)

    def forward(self, data: Any) -> Any:
        if SETTINGS["max_batch_size"] == 1:  # Mosec then hands one over, not a list
            return {"predictions": self._model(data["instances"]).tolist()}
        rows = self._model([body["instances"][0] for body in data])
        return [{"predictions": [row]} for row in rows.tolist()]


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        Inference,
        num=SETTINGS["workers"],
        max_batch_size=SETTINGS["max_batch_size"],
        max_wait_time=SETTINGS["max_wait_ms"],
        route="/predict",
    )
    server.run()
