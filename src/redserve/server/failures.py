"""How the application behind the door answers its own failures: in the form that the path's protocol has for them."""

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from redserve.errors import RedserveError, outcome_of
from redserve.middleware import set_error
from redserve.routes import path_below
from redserve.server.reply import error_reply
from redserve.server.targets import is_open_inference


def add_handlers(app: FastAPI) -> None:
    """Let `app` answer errors of all kinds as JSON."""
    app.exception_handler(RedserveError)(_refused)
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(Exception)(_unhandled)


async def _refused(request: Request, error: RedserveError) -> Response:
    set_error(request, error)
    reply = error_reply(error, is_open_inference=_is_open_inference(request))
    headers = {name.decode(): value.decode() for name, value in reply.headers}
    return Response(reply.body, reply.status, headers)


async def _http_error(request: Request, error: HTTPException) -> Response:
    message = str(error.detail)
    _, reason = outcome_of(error.status_code)
    content = {"error": message if _is_open_inference(request) else {"reason": reason, "message": message}}
    return JSONResponse(content, error.status_code, headers=error.headers)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    wrong = error.errors()
    where = "$." + ".".join(map(str, wrong[0]["loc"])) if wrong else "$"
    message = "; ".join(item["msg"] for item in wrong)
    return JSONResponse({"error": {"reason": "bad_request", "message": message, "where": where}}, 422)


async def _unhandled(request: Request, error: Exception) -> Response:
    message = "the server failed on this request"
    if _is_open_inference(request):
        return JSONResponse({"error": message}, 500)
    return JSONResponse({"error": {"reason": "unhandled_exception", "message": message}}, 500)


def _is_open_inference(request: Request) -> bool:
    return is_open_inference(path_below(request.scope.get("root_path", ""), request.scope["path"]))
