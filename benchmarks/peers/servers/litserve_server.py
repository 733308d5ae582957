"""LitServe: FastAPI processes in front, worker processes behind, a queue between them."""

from typing import Any

from given import PORT, SETTINGS, Model
from litserve import LitAPI, LitServer


class Inference(LitAPI):
    """Decode, batch, predict, take apart, encode."""

    def setup(self, device: str) -> None:
        self._model = Model()

    def decode_request(self, request):  # LitServe would read an annotation as the schema of the body
        return request["instances"][0]

    def batch(self, inputs: Any) -> Any:
        return inputs

    def predict(self, x: Any) -> Any:
        return self._model(x)

    def unbatch(self, output: Any) -> Any:
        return output.tolist()

    def encode_response(self, output: Any) -> Any:
        return {"predictions": [output]}


if __name__ == "__main__":
    api = Inference(max_batch_size=SETTINGS["max_batch_size"], batch_timeout=SETTINGS["max_wait_ms"] / 1000)
    server = LitServer(
        api, accelerator="cpu", workers_per_device=SETTINGS["workers"], fast_queue=SETTINGS["fast_queue"], timeout=60
    )
    server.run(host="127.0.0.1", port=PORT, log_level="warning", generate_client_file=False)
