"""Requests of known rows in two wire formats, and what is read from the answers."""

import json
from typing import Any

import numpy as np
import orjson
from gpu.workloads import Arrays
from load.wire import head

DATATYPES = {"float32": "FP32", "int64": "INT64"}
FORMS = ("binary", "json")


def request_of(form: str, model: str, rows: Arrays) -> bytes:
    """A whole HTTP/1.1 request: `json` to `/predict`, `binary` by the binary tensors of the Open Inference Protocol."""
    if form == "json":
        body = orjson.dumps({"inputs": rows}, option=orjson.OPT_SERIALIZE_NUMPY)
        return (
            head("POST", f"/predict/{model}", f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n")
            + body
        )
    entries = [
        {
            "name": name,
            "shape": values.shape,
            "datatype": DATATYPES[values.dtype.name],
            "parameters": {"binary_data_size": values.nbytes},
        }
        for name, values in rows.items()
    ]
    description = json.dumps({"parameters": {"binary_data_output": True}, "inputs": entries}).encode()
    tensors = b"".join(values.tobytes() for values in rows.values())
    sizes = (
        f"Inference-Header-Content-Length: {len(description)}\r\nContent-Length: {len(description) + len(tensors)}\r\n"
    )
    return head("POST", f"/v2/models/{model}/infer", sizes) + description + tensors


def answer_of(form: str, headers: Any, body: bytes) -> np.ndarray[Any, Any]:
    """The only output."""
    if form == "json":
        (output,) = json.loads(body)["outputs"].values()
        return np.array(output, np.float32)
    split = int(headers["Inference-Header-Content-Length"])
    (output,) = json.loads(body[:split])["outputs"]
    return np.frombuffer(body[split:], np.float32).reshape(output["shape"])
