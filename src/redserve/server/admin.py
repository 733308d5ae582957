"""Health and the index of links: what an operator and a load balancer ask for."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.routing import Route

from redserve.models import ModelState
from redserve.server.targets import Aliases

router = APIRouter()


@router.head("/livez", include_in_schema=False)
@router.get("/livez", summary="Whether the process answers")
async def livez() -> dict[str, str]:
    """Always 200: a restart would help nobody who gets this answer."""
    return {"status": "alive"}


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    summary="Whether every model is warm and requests are welcome",
    responses={503: {"description": "Not yet, or not any more; with the reasons"}},
)
async def readyz(request: Request) -> Response:
    """200 and what runs each model, once all are ready; 503 and the reasons until then, and while the server drains."""
    serving = request.app.state.redserve
    reasons = await serving.not_ready()
    if reasons:
        return JSONResponse({"status": "not ready", "reasons": reasons}, status_code=503)
    loaded = [model for model in serving.repository if model.state is ModelState.READY]
    return JSONResponse({"status": "ready", "providers": {model.name: model.engine.provider for model in loaded}})


def health_routes(aliases: Aliases) -> list[Route]:
    """Where a platform asks: as above, but an empty answer says that all is well."""
    asked = ((aliases.ready, _is_ready), (aliases.live, _is_live))
    return [
        Route(path, endpoint, methods=["GET"], include_in_schema=False) for path, endpoint in asked if path is not None
    ]


async def _is_ready(request: Request) -> Response:
    answer = await readyz(request)
    return answer if answer.status_code != 200 else Response()


async def _is_live(request: Request) -> Response:
    return Response()


@router.head("/", include_in_schema=False)
@router.get("/", summary="What is served here")
async def index(request: Request) -> dict[str, Any]:
    """Links, and the models with their inputs and outputs."""
    root = request.scope.get("root_path", "")
    serving = request.app.state.redserve
    return {
        "name": "redserve",
        "version": request.app.version,
        "models": [
            {
                "name": model.name,
                "version": model.version,
                "state": model.state,
                "predict": f"{root}/predict/{model.name}",
            }
            for model in serving.repository
        ],
        "links": {
            name: f"{root}/{path}"
            for name, path in {
                "predict": "predict",
                "docs": "docs",
                "openapi": "openapi.json",
                "metrics": "metrics",
                "live": "livez",
                "ready": "readyz",
            }.items()
        },
    }
