"""The OpenAPI description of `/predict`: written from the models that are served, with an example that works."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import orjson

from redserve.engine.bfloat16 import is_bfloat16, is_float
from redserve.engine.tensors import TensorSpec
from redserve.models import ServedModel
from redserve.protocol import InferRequest, PredictJson
from redserve.server.targets import is_open_inference, target_of

MAX_EXAMPLE_BYTES = 4096
"""A longer example helps no reader: an image of 3x224x224 is 1 MB of JSON."""

MAX_SIZED_VALUES = 1_000
"""Sizes of larger tensors are left out of the schema: pages make up an example value by value."""

_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["reason", "message"],
            "properties": {
                "reason": {"type": "string", "description": "one of a few fixed words, as in inference_errors_total"},
                "message": {"type": "string"},
                "model": {"type": "string"},
                "where": {"type": "string", "description": "JSON path of the mistake"},
            },
        }
    },
}

_OPEN_INFERENCE_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}

ERRORS = {
    "400": "the body is not JSON, or does not fit the model",
    "404": "no such model",
    "405": "only POST is served here",
    "408": "the body came too slowly",
    "413": "the body is too large",
    "415": "the body's type, or its encoding, is not read here",
    "429": "as 503 for overload, where --overload-status says so",
    "500": "the model failed on this request",
    "503": "overloaded, too late for the deadline, or the model is not ready; try again after Retry-After seconds",
    "504": "the deadline passed before the request could run",
}

_OTHER_FORMS = (
    "One array of numbers may also come as `application/x-npy`, and is answered with one, or as bare rows in little "
    "endian, `application/octet-stream`. `Content-Encoding` may be gzip or deflate."
)

_POSITIVE = r"^([1-9][0-9]{0,14}(\.[0-9]{1,9})?|0\.[0-9]{0,8}[1-9])$"

TIMEOUT_HEADER = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "description": "milliseconds: answer within them or refuse; the server caps it, and has a default",
    "schema": {"type": "string", "pattern": _POSITIVE, "example": "250"},
}

_KEY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}

_KEY_ERRORS = {"401": "no key came, or none that is known", "403": "the key is for something else"}


def example_of(model: ServedModel, *, by_column: bool = False) -> tuple[bytes, bytes] | None:
    """A request body that works, and its answer; `None` until the model is loaded."""
    if model.example is None:
        return None
    engine = model.engine
    by_column = by_column or not engine.batchability.is_row_wise
    codec = PredictJson(engine.inputs, engine.outputs, row_wise=engine.batchability.is_row_wise)
    inputs, outputs = model.example
    answer = codec.encode(InferRequest(inputs, "columns" if by_column else "values"), outputs)
    return codec.encode_request(inputs, by_column=by_column), answer.body


def predict_paths(models: list[ServedModel], *, alias: str | None = None) -> dict[str, Any]:
    """The `paths` of `/predict` and `/predict/{model}`, and of an alias of the first."""
    named = _operation("Run one of the models", "predict_model", models)
    named["parameters"] += [
        {
            "name": "model",
            "in": "path",
            "required": True,
            "schema": {"type": "string", "enum": [model.name for model in models]},
        }
    ]
    paths = {"/predict/{model}": {"post": named}}
    if len(models) == 1:
        paths = {"/predict": {"post": _operation("Run the model", "predict", models)}} | paths
        if alias is not None and target_of(alias) is None:
            paths[alias] = {"post": _operation("Run the model", "predict_alias", models)}
    return paths


def with_keys(schema: dict[str, Any], needs_key: Callable[[str], bool]) -> dict[str, Any]:
    """`schema`, where each operation below a path that `needs_key` says so, and both ways to send one."""
    guarded = {path for path in schema["paths"] if needs_key(path)}
    if not guarded:
        return schema
    paths = {
        path: {method: _with_key(path, operation) for method, operation in item.items()} if path in guarded else item
        for path, item in schema["paths"].items()
    }
    components = schema.get("components", {})
    return {**schema, "paths": paths, "components": {**components, "securitySchemes": _KEY_SCHEMES}}


def _with_key(path: str, operation: dict[str, Any]) -> dict[str, Any]:
    answers = {**operation["responses"], **responses(_KEY_ERRORS, is_open_inference=is_open_inference(path))}
    return {**operation, "responses": answers, "security": [{name: []} for name in _KEY_SCHEMES]}


def _operation(summary: str, operation_id: str, models: list[ServedModel]) -> dict[str, Any]:
    requests, answers = {}, {}
    for model in models:
        for by_column in (False, True):
            example = example_of(model, by_column=by_column)
            if example is not None and max(map(len, example)) <= MAX_EXAMPLE_BYTES:
                name = f"{model.name}, {'columns' if by_column else 'rows'}"
                requests[name], answers[name] = ({"value": orjson.loads(body)} for body in example)
    return {
        "summary": summary,
        "operationId": operation_id,
        "tags": ["inference"],
        "description": "\n\n".join([*map(_description, models), _OTHER_FORMS]),
        "parameters": [TIMEOUT_HEADER],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _request_schema(models), "examples": requests}},
        },
        "responses": {
            "200": {
                "description": "one prediction a row, in the order of the rows",
                "content": {"application/json": {"schema": _one_of("predictions", "outputs"), "examples": answers}},
            },
            **responses(ERRORS),
        },
    }


def responses(errors: Mapping[str, str], *, is_open_inference: bool = False) -> dict[str, Any]:
    """`errors`, a description for each status, in the form that the protocol has for them."""
    schema = _OPEN_INFERENCE_ERROR if is_open_inference else _ERROR_SCHEMA
    return {
        status: {"description": text, "content": {"application/json": {"schema": schema}}}
        for status, text in errors.items()
    }


def _request_schema(models: list[ServedModel]) -> dict[str, Any]:
    """The forms that the models take: rows of those that are row-wise, columns of all."""
    forms: list[dict[str, Any]] = []
    for engine in (model.engine for model in models if model.example is not None):
        is_row_wise = engine.batchability.is_row_wise
        columns = {spec.name: _tensor_schema(spec, is_row_wise=is_row_wise) for spec in engine.inputs}
        if is_row_wise:
            rows = {name: column["items"] for name, column in columns.items()}
            kinds_of_row = [*rows.values(), _object(rows)] if len(rows) == 1 else [_object(rows)]
            forms += [_body({"instances": {"type": "array", "items": row, "minItems": 1}}) for row in kinds_of_row]
        forms.append(_body({"inputs": _object(columns)}))
    return {"anyOf": forms} if forms else _one_of("instances", "inputs")


def _body(properties: dict[str, Any]) -> dict[str, Any]:
    body = _object(properties)
    body["properties"] = properties | {"parameters": {"description": "as Vertex AI's clients send it; has no effect"}}
    return body


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties, "additionalProperties": False}


def _tensor_schema(spec: TensorSpec, *, is_row_wise: bool) -> dict[str, Any]:
    schema = _element_schema(spec.dtype)
    is_small = math.prod(size for size in spec.shape[1:] if isinstance(size, int)) <= MAX_SIZED_VALUES
    for axis in reversed(range(len(spec.shape))):
        size = spec.shape[axis]
        schema = {"type": "array", "items": schema}
        if isinstance(size, int) and is_small and not (is_row_wise and axis == 0):
            schema |= {"minItems": size, "maxItems": size}
        elif axis == 0 or axis < len(spec.shape) - 1:  # an empty list would not say how its axis goes on
            schema["minItems"] = 1
    return schema


def _element_schema(dtype: np.dtype[Any]) -> dict[str, Any]:
    if dtype.kind in "iu":
        integers = np.iinfo(dtype)
        return {"type": "integer", "minimum": int(integers.min), "maximum": int(integers.max)}
    if is_float(dtype):
        numbers = np.finfo(np.float32 if is_bfloat16(dtype) else dtype)  # whose range is that of its upper half
        return {"type": "number", "minimum": float(numbers.min), "maximum": float(numbers.max)}
    return {"type": "boolean" if dtype.kind == "b" else "string"}


def _one_of(rows: str, columns: str) -> dict[str, Any]:
    """Either a list of rows, or named columns."""
    return {
        "oneOf": [
            {"type": "object", "required": [rows], "properties": {rows: {"type": "array", "items": {}}}},
            {"type": "object", "required": [columns], "properties": {columns: {"type": "object"}}},
        ]
    }


def _description(model: ServedModel) -> str:
    if model.example is None:
        return f"**{model.name}**: not ready, {model.reason}"
    engine = model.engine
    inputs, outputs = (", ".join(f"`{spec}`" for spec in specs) for specs in (engine.inputs, engine.outputs))
    return f"**{model.name}** takes {inputs} and answers {outputs}."
