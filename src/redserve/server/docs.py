"""The OpenAPI description of `/predict`: written from the models that are served, with an example that works."""

import math
from typing import Any

import orjson

from redserve.engine.tensors import TensorSpec
from redserve.models import ServedModel
from redserve.protocol import InferRequest, PredictJson

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

_ERRORS = {
    "400": "the body is not JSON, or does not fit the model",
    "404": "no such model",
    "405": "only POST is served here",
    "408": "the body came too slowly",
    "413": "the body is too large",
    "415": "the body is not JSON",
    "429": "as 503 for overload, where --overload-status says so",
    "500": "the model failed on this request",
    "503": "overloaded, too late for the deadline, or the model is not ready; try again after Retry-After seconds",
    "504": "the deadline passed before the request could run",
}


def example_of(model: ServedModel, *, by_column: bool = False) -> tuple[bytes, bytes] | None:
    """A request body that works, and its answer; `None` until the model is loaded."""
    if model.example is None:
        return None
    engine = model.engine
    by_column = by_column or not engine.batchability.is_row_wise
    codec = PredictJson(engine.inputs, engine.outputs, row_wise=engine.batchability.is_row_wise)
    inputs, outputs = model.example
    return codec.encode_request(inputs, by_column=by_column), codec.encode(
        InferRequest(inputs, "columns" if by_column else "values"), outputs
    )


def predict_paths(models: list[ServedModel]) -> dict[str, Any]:
    """The `paths` of `/predict` and `/predict/{model}`."""
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
    return paths


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
        "description": "\n\n".join(_description(model) for model in models),
        "parameters": [
            {
                "name": "X-Request-Timeout-Ms",
                "in": "header",
                "description": "answer within this or refuse; the server caps it, and has a default",
                "schema": {"type": "number", "exclusiveMinimum": 0},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _request_schema(models), "examples": requests}},
        },
        "responses": {
            "200": {
                "description": "one prediction a row, in the order of the rows",
                "content": {"application/json": {"schema": _one_of("predictions", "outputs"), "examples": answers}},
            },
            **{
                status: {"description": text, "content": {"application/json": {"schema": _ERROR_SCHEMA}}}
                for status, text in _ERRORS.items()
            },
        },
    }


def _request_schema(models: list[ServedModel]) -> dict[str, Any]:
    """The forms that the models take: rows of those that are row-wise, columns of all."""
    forms: list[dict[str, Any]] = []
    for engine in (model.engine for model in models if model.example is not None):
        rows = {spec.name: _tensor_schema(spec, skip_dims=1) for spec in engine.inputs}
        columns = {spec.name: _tensor_schema(spec, skip_dims=0) for spec in engine.inputs}
        if engine.batchability.is_row_wise:
            row = next(iter(rows.values())) if len(rows) == 1 else _object(rows)
            forms.append(_object({"instances": {"type": "array", "items": row}}))
        forms.append(_object({"inputs": _object(columns)}))
    return {"oneOf": forms} if forms else _one_of("instances", "inputs")


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _tensor_schema(spec: TensorSpec, *, skip_dims: int) -> dict[str, Any]:
    kind = {"f": "number", "i": "integer", "u": "integer", "b": "boolean"}.get(spec.dtype.kind, "string")
    schema: dict[str, Any] = {"type": kind}
    is_small = math.prod(size for size in spec.shape[1:] if isinstance(size, int)) <= MAX_SIZED_VALUES
    for axis in reversed(range(skip_dims, len(spec.shape))):
        size = spec.shape[axis]
        schema = {"type": "array", "items": schema}
        if isinstance(size, int) and axis > 0 and is_small:
            schema |= {"minItems": size, "maxItems": size}
    return schema


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
