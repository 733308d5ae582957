"""What a server serves, by its own account: the Open Inference Protocol's metadata, which ours has too.

GET  /v2                        its name
GET  /v2/models                 the models (ours, KServe)
POST /v2/repository/index       the models (Triton, MLServer)
GET  /v2/models/{model}         inputs: names, types, shapes
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np

from redserve.bench.exchange import Server
from redserve.bench.mistakes import BenchError
from redserve.engine.tensors import TensorSpec

_DTYPES: Mapping[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """A model on a server.

    Attributes:
        server_name: As it calls itself.
        server_version: As it says.
        model: Its name.
        inputs: What it takes.
        is_row_wise: Whether axis 0 of every input counts rows.
    """

    server_name: str
    server_version: str
    model: str
    inputs: Sequence[TensorSpec]
    is_row_wise: bool

    @property
    def is_ours(self) -> bool:
        """Whether it has `/predict` beside `/v2`."""
        return self.server_name == "redserve"


def find_target(server: Server, model: str | None) -> Target:
    """Ask the server for its model; the only one it has if none is named.

    Raises:
        BenchError: It does not say, has no such model, or has several and none was named.
    """
    about = server.ask("GET", "/v2").json()
    named = about if isinstance(about, dict) else {}
    chosen = model or _only_model(server)
    answer = server.ask("GET", f"/v2/models/{quote(chosen, safe='')}")
    if not answer.is_ok:
        others = _models(server)
        known = f"; it serves {', '.join(others)}" if others else ""
        raise BenchError(f"{server.url} serves no model {chosen!r}{known} (GET /v2/models/{chosen} gave {answer})")
    metadata = answer.json()
    if not isinstance(metadata, dict) or not isinstance(metadata.get("inputs"), list) or not metadata["inputs"]:
        raise BenchError(f"{server.url} does not say what {chosen!r} takes: {answer}")
    inputs = tuple(_spec(entry) for entry in metadata["inputs"])
    return Target(
        server_name=str(named.get("name", "")),
        server_version=str(named.get("version", "")),
        model=chosen,
        inputs=inputs,
        is_row_wise=all(spec.shape and spec.shape[0] is None for spec in inputs),
    )


def _only_model(server: Server) -> str:
    models = _models(server)
    if not models:
        raise BenchError(
            f"{server.url} does not say which models it serves: name one with --model, or give the whole URL of an "
            "endpoint and a --body"
        )
    if len(models) > 1:
        raise BenchError(f"{server.url} serves several models, choose one: --model {' | '.join(models)}")
    return models[0]


def _models(server: Server) -> list[str]:
    listed = server.ask("GET", "/v2/models").json()
    if isinstance(listed, dict) and isinstance(listed.get("models"), list):
        return [str(name) for name in listed["models"]]
    index = server.ask("POST", "/v2/repository/index", body=b"{}", headers={"Content-Type": "application/json"}).json()
    if isinstance(index, list):
        return sorted({str(entry.get("name")) for entry in index if isinstance(entry, dict)})
    return []


def _spec(entry: Any) -> TensorSpec:
    try:
        name, datatype, shape = str(entry["name"]), entry["datatype"], entry["shape"]
        sizes = tuple(None if int(size) < 0 else int(size) for size in shape)
    except (KeyError, TypeError, ValueError) as error:
        raise BenchError(f"this is no input of the Open Inference Protocol: {entry}") from error
    if datatype not in _DTYPES:
        raise BenchError(f"input {name!r} is {datatype}, of which no rows can be made up here")
    return TensorSpec(name, np.dtype(_DTYPES[datatype]), sizes)
