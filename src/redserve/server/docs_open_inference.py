"""The OpenAPI description of the Open Inference Protocol, with examples of the models that are served.

Its shapes are those of `kserve/open-inference-protocol: specification/protocol/open_inference_rest.yaml`. They say less
than a server knows: that `data` has to fill `shape`, and what each model takes, no schema of it tells.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from redserve.errors import RedserveError
from redserve.models import ServedModel
from redserve.models.listing import NAME
from redserve.protocol import OpenInference, datatype_of
from redserve.server.docs import ERRORS, MAX_EXAMPLE_BYTES, TIMEOUT_HEADER, responses

_TAG = "Open Inference Protocol"
_NOT_HERE = {"404": "no such model, or not in this version", "405": "another method is served here"}
_NOT_READY = {"503": "not ready; try again after Retry-After seconds"}
_DATATYPES = [
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "BF16",
    "FP32",
    "FP64",
    "BYTES",
]
_NAME = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_GIVEN_COUNT = {"type": ["integer", "null"], "minimum": 0}
_GIVEN_FLAG = {"type": ["boolean", "null"]}


def paths(models: Sequence[ServedModel], *, explicit: bool = False) -> dict[str, Any]:
    """The `paths` below `/v2`; `explicit` is whether models are loaded and unloaded by request."""
    described: dict[str, Any] = {
        "/v2": _get("What this server can do", "v2_server", _object("name", "version", extensions=_list(_NAME))),
        "/v2/health/live": _get("Whether the process answers", "v2_live", _object(live={"const": True})),
        "/v2/health/ready": _get(
            "Whether every model is ready", "v2_ready", _object(ready={"const": True}), errors=_NOT_READY
        ),
        "/v2/models": _get("Which models are served", "v2_models", _object(models=_list(_NAME))),
        "/v2/models/stats": _get("What all models have done so far", "v2_all_statistics", _STATISTICS),
        "/v2/repository/index": {"post": _index()},
    }
    names = [model.name for model in models]
    if explicit:
        described["/v2/repository/models/{model}/load"] = {
            "post": _change("Load a model, or load it anew", "v2_load", names, _NO_PARAMETERS)
        }
        described["/v2/repository/models/{model}/unload"] = {"post": _change("Unload a model", "v2_unload", names, {})}
    versions = sorted({model.version for model in models})
    for prefix, suffix, named in (
        ("/v2/models/{model}", "", {"model": names}),
        ("/v2/models/{model}/versions/{version}", "_version", {"model": names, "version": versions}),
    ):
        if not models:
            break
        described[f"{prefix}/infer"] = {"post": _infer(models, f"v2_infer{suffix}", named)}
        for end, summary, answer in (
            ("", "What a model takes and gives", _METADATA),
            ("/ready", "Whether a model is ready", _object("name", ready={"const": True})),
            ("/config", "How a model is served", _object("name", "platform", max_batch_size=_COUNT)),
            ("/stats", "What a model has done so far", _STATISTICS),
        ):
            operation_id = f"v2_model{end.replace('/', '_')}{suffix}"
            described[f"{prefix}{end}"] = _get(
                summary, operation_id, answer, named=named, errors=_NOT_HERE | _NOT_READY
            )
    return described


def example_of(model: ServedModel) -> tuple[bytes, bytes] | None:
    """A request that works, and its answer; `None` until the model is loaded, or where JSON cannot say them."""
    if model.example is None:
        return None
    engine = model.engine
    inputs, outputs = model.example
    try:
        codec = OpenInference(
            engine.inputs,
            engine.outputs,
            model_name=model.name,
            model_version=model.version,
            row_wise=engine.batchability.is_row_wise,
        )
        entries = [
            {
                "name": spec.name,
                "shape": list(inputs[spec.name].shape),
                "datatype": datatype_of(spec.dtype),
                "data": inputs[spec.name].ravel().tolist(),
            }
            for spec in engine.inputs
        ]
        request = orjson.dumps({"inputs": entries})
        return request, codec.encode(codec.decode(request), outputs).body
    except (RedserveError, ValueError):  # half precision, or a type that the protocol has no name for
        return None


def _infer(models: Sequence[ServedModel], operation_id: str, named: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    requests, answers = {}, {}
    for model in models:
        example = example_of(model)
        if example is not None and max(map(len, example)) <= MAX_EXAMPLE_BYTES:
            requests[model.name], answers[model.name] = ({"value": orjson.loads(body)} for body in example)
    operation = _operation(
        "Run a model",
        operation_id,
        _object("model_name", "model_version", outputs=_list(_OUTPUT)),
        named=named,
        errors=ERRORS,
        examples=answers,
    )
    operation["responses"]["200"]["content"]["application/octet-stream"] = {}
    return operation | {
        "description": "Tensors may also come and go as binary data behind the JSON, whose length is then in "
        "`Inference-Header-Content-Length`; `Content-Encoding` and `Accept-Encoding` may be gzip or deflate.",
        "parameters": [*_named(named), TIMEOUT_HEADER],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _REQUEST, "examples": requests}}},
    }


def _index() -> dict[str, Any]:
    entry = _object("name", "version", "reason", state={"enum": ["READY", "LOADING", "UNAVAILABLE", "UNLOADING"]})
    entry["required"] = ["name"]  # of what was never loaded there is no more to say
    asked = {"type": "object", "properties": {"ready": {"type": "boolean"}}}
    return _operation(
        "Every model and its state",
        "v2_index",
        _list(entry),
        errors={code: ERRORS[code] for code in ("400", "405", "408", "413", "503")},
    ) | {"requestBody": {"required": False, "content": {"application/json": {"schema": asked}}}}


def _change(summary: str, operation_id: str, names: Sequence[str], parameters: dict[str, Any]) -> dict[str, Any]:
    errors = {code: ERRORS[code] for code in ("400", "404", "405", "408", "413")}
    errors |= {"500": "it cannot be loaded; what has served before goes on", "503": "the server shuts down"}
    body = {"type": "object", "properties": {"parameters": parameters}}
    return {
        "summary": summary,
        "operationId": operation_id,
        "tags": [_TAG],
        "parameters": [
            {
                "name": "model",
                "in": "path",
                "required": True,
                "schema": {"type": "string", "pattern": f"^{NAME}$"},
                "examples": {name: {"value": name} for name in names},
            }
        ],
        "responses": {"200": {"description": "done"}, **responses(errors, is_open_inference=True)},
        "requestBody": {"required": False, "content": {"application/json": {"schema": body}}},
    }


def _get(
    summary: str,
    operation_id: str,
    answer: dict[str, Any],
    *,
    named: Mapping[str, Sequence[str]] | None = None,
    errors: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    errors = {"405": "only GET is served here"} | dict(errors or {})
    return {"get": _operation(summary, operation_id, answer, named=named or {}, errors=errors)}


def _operation(
    summary: str,
    operation_id: str,
    answer: dict[str, Any],
    *,
    errors: Mapping[str, str],
    named: Mapping[str, Sequence[str]] | None = None,
    examples: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    content = {"schema": answer} | ({"examples": examples} if examples else {})
    return {
        "summary": summary,
        "operationId": operation_id,
        "tags": [_TAG],
        "parameters": _named(named or {}),
        "responses": {
            "200": {"description": "as asked", "content": {"application/json": content}},
            **responses(errors, is_open_inference=True),
        },
    }


def _named(named: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "enum": list(values)}}
        for name, values in named.items()
    ]


def _object(*texts: str, **properties: Any) -> dict[str, Any]:
    """Fields that are text, and others; all of them always there."""
    every = dict.fromkeys(texts, _NAME) | properties
    return {"type": "object", "required": list(every), "properties": every}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_PARAMETERS = {
    "type": ["object", "null"],
    "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
    "propertyNames": {"not": {"pattern": "^(triton_|shared_memory_)"}},
}
_NO_PARAMETERS = {"type": ["object", "null"], "maxProperties": 0}
_TENSOR = _object("name", shape=_list({"type": "integer"}), datatype={"enum": _DATATYPES})
_METADATA = _object("name", "platform", versions=_list(_NAME), inputs=_list(_TENSOR), outputs=_list(_TENSOR))
_STATISTICS = _object(
    model_stats=_list(_object("name", "version", last_inference=_COUNT, inference_count=_COUNT, execution_count=_COUNT))
)
_OUTPUT = _object("name", shape=_list(_COUNT), datatype={"enum": _DATATYPES}, data={"type": "array"})
_OUTPUT["required"] = ["name", "shape", "datatype"]
_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": ["string", "null"]},
        "parameters": _PARAMETERS
        | {"properties": {"timeout": _GIVEN_COUNT, "priority": _GIVEN_COUNT, "binary_data_output": _GIVEN_FLAG}},
        "inputs": _list(
            {
                "type": "object",
                "required": ["name", "shape", "datatype"],
                "properties": {
                    "name": _NAME,
                    "shape": _list(_COUNT),
                    "datatype": {"enum": _DATATYPES},
                    "parameters": _PARAMETERS | {"properties": {"binary_data_size": _GIVEN_COUNT}},
                    "data": {"description": "flat, or nested as the shape says"},
                },
            }
        ),
        "outputs": {
            "type": ["array", "null"],
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": _NAME,
                    "parameters": _PARAMETERS
                    | {"properties": {"binary_data": _GIVEN_FLAG, "classification": _GIVEN_COUNT}},
                },
            },
        },
    },
}
