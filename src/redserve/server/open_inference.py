"""The Open Inference Protocol beside inference itself: health, metadata, configuration, statistics, repository index.

Errors are `{"error": "text"}`. What is not ready is 503, where Triton says 400: load balancers understand it. Names of
models are one segment of a path; `/v2/models/stats` are the statistics of all, whatever a model is called.

Source: `kserve/open-inference-protocol: specification/protocol/inference_rest.md`; `triton-inference-server/server:
docs/protocol/extension_model_repository.md`, `extension_statistics.md`, `extension_model_configuration.md`.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from redserve.errors import BadRequest, ModelNotReady, TooLarge
from redserve.middleware import set_model
from redserve.models import ModelState, ServedModel
from redserve.protocol import model_config, model_metadata, server_metadata
from redserve.server.statistics import ModelStatistics

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)

MAX_CONTROL_BYTES = 16_384
"""Of a body that is no inference: a few words."""

_STATES = {
    ModelState.LOADING: "LOADING",
    ModelState.READY: "READY",
    ModelState.FAILED: "UNAVAILABLE",
    ModelState.STOPPED: "UNLOADING",
}


def routes() -> list[Route]:
    """All paths below `/v2` but those of inference, which the door takes."""
    get: dict[str, Callable[[Request], Awaitable[Response]]] = {
        "/v2": _server,
        "/v2/": _server,  # as the published OpenAPI description has it
        "/v2/health/live": _live,
        "/v2/health/ready": _ready,
        "/v2/models": _models,
        "/v2/models/stats": _all_statistics,
    }
    for end, endpoint in {"": _metadata, "/ready": _model_ready, "/config": _config, "/stats": _statistics}.items():
        get[f"/v2/models/{{model}}{end}"] = endpoint
        get[f"/v2/models/{{model}}/versions/{{version}}{end}"] = endpoint
    return [
        *(Route(path, endpoint, methods=["GET"], include_in_schema=False) for path, endpoint in get.items()),
        Route("/v2/repository/index", _index, methods=["POST"], include_in_schema=False),
        Route("/v2/repository/models/{model}/load", _load, methods=["POST"], include_in_schema=False),
        Route("/v2/repository/models/{model}/unload", _unload, methods=["POST"], include_in_schema=False),
    ]


async def _server(request: Request) -> Response:
    return _json(server_metadata(request.app.version, EXTENSIONS))


async def _live(request: Request) -> Response:
    return _json({"live": True})


async def _ready(request: Request) -> Response:
    """200 once every model is ready, as `/readyz`."""
    not_ready = await request.app.state.redserve.not_ready()
    reasons = [reason if name == "server" else f"{name}: {reason}" for name, reason in not_ready.items()]
    if reasons:
        raise ModelNotReady("; ".join(reasons))
    return _json({"ready": True})


async def _models(request: Request) -> Response:
    return _json({"models": [model.name for model in request.app.state.redserve.repository]})


async def _metadata(request: Request) -> Response:
    model = _model(request)
    engine = model.engine
    row_wise = engine.batchability.is_row_wise
    asked_version = request.path_params.get("version")
    versions = [asked_version] if asked_version else request.app.state.redserve.repository.versions_of(model.name)
    return _json(model_metadata(model.name, versions, engine.inputs, engine.outputs, row_wise=row_wise))


async def _model_ready(request: Request) -> Response:
    model = _model(request)
    if not model.is_ready:
        raise ModelNotReady(f"model {model.name!r} is not ready: {model.reason}")
    return _json({"name": model.name, "ready": True})


async def _config(request: Request) -> Response:
    model = _model(request)
    engine, policy = model.engine, model.policy
    return _json(
        model_config(
            model.name,
            engine.inputs,
            engine.outputs,
            max_batch_size=policy.max_batch_size if engine.batchability.is_row_wise else 0,
            max_queue_delay_s=policy.max_queue_delay_s,
            instances=model.options.instances,
        )
    )


async def _statistics(request: Request) -> Response:
    model = _model(request)
    version = request.path_params.get("version")
    return await _statistics_of(request, [model.name], version=version)


async def _all_statistics(request: Request) -> Response:
    names = [model.name for model in request.app.state.redserve.repository]
    return await _statistics_of(request, names)


async def _index(request: Request) -> Response:
    """Every version; with `{"ready": true}` those that take requests. What was never loaded has a name only."""
    only_ready = _only_ready(await _control_body(request))
    rows = await request.app.state.redserve.repository.index()
    return _json(
        [
            {"name": row.name}
            if row.state is None
            else {"name": row.name, "version": row.version, "state": _STATES[row.state], "reason": row.reason}
            for row in rows
            if not only_ready or row.state is ModelState.READY
        ]
    )


async def _load(request: Request) -> Response:
    """Answers once the model is served as its files are now."""
    body = _object(await _control_body(request))
    if body.get("parameters") not in (
        None,
        {},
    ):  # Triton takes configurations and model files here: clients would choose what is served
        raise BadRequest("a model is loaded as it lies in the repository, without parameters", where="$.parameters")
    await request.app.state.redserve.repository.load(request.path_params["model"])
    return Response()


async def _unload(request: Request) -> Response:
    """Answers once the model is not served any more; what it has taken is answered yet."""
    _object(await _control_body(request))  # whose one parameter, `unload_dependents`, has no meaning here
    await request.app.state.redserve.repository.unload(request.path_params["model"])
    return Response()


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")


def _model(request: Request) -> ServedModel:
    """The one that the path names.

    Raises:
        UnknownModel: There is none, or not of this version.
        ModelNotReady: It takes no requests.
    """
    parameters = request.path_params
    model: ServedModel = request.app.state.redserve.repository.get(parameters["model"], parameters.get("version"))
    set_model(request, model.name)
    return model


async def _statistics_of(request: Request, names: list[str], *, version: str | None = None) -> Response:
    """Those of one version, or of all that take requests."""
    serving = request.app.state.redserve
    keys = [
        (name, each)
        for name in names
        for each in (serving.repository.versions_of(name) if version is None else [version])
    ]
    statistics = await serving.statistics()
    return _json({"model_stats": [statistics.get(key, ModelStatistics()).describe(*key) for key in keys]})


async def _control_body(request: Request) -> bytes:
    bodies = request.app.state.redserve.service.terms.bodies
    body: bytes | None = await bodies.read(request.receive, request.headers.get("content-length", "").encode())
    if body is not None and len(body) > MAX_CONTROL_BYTES:
        raise TooLarge(MAX_CONTROL_BYTES)
    return body or b""


def _object(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from error
    if not isinstance(asked, dict):
        raise BadRequest("the body must be an object", where="$")
    return asked


def _only_ready(body: bytes) -> bool:
    only_ready = _object(body).get("ready", False)
    if not isinstance(only_ready, bool):
        raise BadRequest("'ready' must be true or false", where="$.ready")
    return only_ready
