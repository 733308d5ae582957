"""The shapes that the published OpenAPI description of the Open Inference Protocol has, for one model and version.

Source: `kserve/open-inference-protocol: specification/protocol/open_inference_rest.yaml`.
"""

from typing import Any

_TEXT = {"type": "string"}
_DATA: dict[str, Any] = {
    "type": "array",
    "items": {"anyOf": [{"$ref": "#/components/schemas/data"}, {"type": "number"}, _TEXT, {"type": "boolean"}]},
}
_SHAPE = {"type": "array", "items": {"type": "integer"}}


def published(*, model: str, version: str) -> dict[str, Any]:
    """An OpenAPI document; what is published leaves names and versions open."""
    named = [_in_path("model", model), _in_path("version", version)]
    below = "/v2/models/{model}/versions/{version}"
    return {
        "openapi": "3.0.0",
        "info": {"title": "Data Plane", "version": "2.0"},
        "paths": {
            "/v2/": {"get": _operation(_object("name", "version", extensions={"type": "array", "items": _TEXT}))},
            "/v2/health/live": {"get": _operation()},
            "/v2/health/ready": {"get": _operation()},
            f"{below}/ready": {"parameters": named, "get": _operation()},
            below: {"parameters": named, "get": _operation(_object("name", "platform", **_optional()))},
            f"{below}/infer": {"parameters": named, "post": _operation(_ANSWER) | {"requestBody": _json(_REQUEST)}},
        },
        "components": {"schemas": {"data": _DATA}},
    }


def _in_path(name: str, value: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "enum": [value]}}


def _operation(answer: dict[str, Any] | None = None) -> dict[str, Any]:
    good = {"description": "OK"} | (_json(answer) if answer else {})
    bad = {"description": "Bad Request"} | _json(_object("error"))
    return {"responses": {"200": good, "400": bad}}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _object(*texts: str, **properties: Any) -> dict[str, Any]:
    """Fields that are text, and others; those that are optional say so."""
    every = dict.fromkeys(texts, _TEXT) | properties
    required = [name for name, schema in every.items() if not schema.get("x-optional")]
    return {"type": "object", "required": required, "properties": every}


def _maybe(schema: dict[str, Any]) -> dict[str, Any]:
    return schema | {"x-optional": True}


def _optional() -> dict[str, Any]:
    tensors = {"type": "array", "items": _object("name", "datatype", shape=_SHAPE)}
    return {
        "versions": _maybe({"type": "array", "items": _TEXT}),
        "inputs": _maybe(tensors),
        "outputs": _maybe(tensors),
    }


_PARAMETERS = _maybe({"type": "object"})
_TENSOR = _object("name", "datatype", shape=_SHAPE, parameters=_PARAMETERS, data={"$ref": "#/components/schemas/data"})
_REQUEST = _object(
    id=_maybe(_TEXT),
    parameters=_PARAMETERS,
    inputs={"type": "array", "items": _TENSOR},
    outputs=_maybe({"type": "array", "items": _object("name", parameters=_PARAMETERS)}),
)
_ANSWER = _object(
    "model_name",
    model_version=_maybe(_TEXT),
    id=_maybe(_TEXT),
    parameters=_PARAMETERS,
    outputs={"type": "array", "items": _TENSOR},
)
