"""What a client gets, and how it is told of a failure: at `/predict` and elsewhere, and below `/v2`.

elsewhere   {"error": {"reason", "message", "model"?, "where"?}}
below /v2   {"error": "text"}
"""

from collections.abc import Iterable

import orjson

from redserve.answers import headers_of
from redserve.errors import BadRequest, Overloaded, RedserveError
from redserve.protocol import error_body

MAX_MESSAGE_CHARACTERS = 1_000
"""Messages may quote the request, whose names have any length."""

JSON = (b"content-type", b"application/json")


class Reply:
    """What the client gets.

    Attributes:
        status: HTTP status.
        lines: Its headers as they are sent, each line with its end; content type and length among them.
        body: The bytes.
        model: The model that answers, for the `model` label; empty when the request reached none.
        error: Why the request failed, or `None`.
    """

    __slots__ = ("body", "error", "lines", "model", "status")

    def __init__(
        self, status: int, lines: bytes, body: bytes, model: str = "", error: RedserveError | None = None
    ) -> None:
        self.status = status
        self.lines = lines
        self.body = body
        self.model = model
        self.error = error

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Names, which are in lower case, and values."""
        headers = []
        for line in self.lines.split(b"\r\n")[:-1]:
            name, _, value = line.partition(b": ")
            headers.append((name, value))
        return headers


def lines_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The headers as they are sent."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def error_reply(
    error: RedserveError, *, model: str = "", overload_status: int = 503, is_open_inference: bool = False
) -> Reply:
    """The answer to a request that failed.

    Args:
        error: Why.
        model: The model that it reached.
        overload_status: The status of what is turned away because too much waits.
        is_open_inference: Tell it as the Open Inference Protocol does.
    """
    body = error_body(error, max_characters=MAX_MESSAGE_CHARACTERS) if is_open_inference else _body(error, model)
    headers = [JSON, (b"content-length", str(len(body)).encode()), *headers_of(error)]
    status = overload_status if isinstance(error, Overloaded) else error.status
    return Reply(status, lines_of(headers), body, model, error)


def _body(error: RedserveError, model: str) -> bytes:
    fields: dict[str, str] = {"reason": error.reason, "message": str(error)[:MAX_MESSAGE_CHARACTERS]}
    if model:
        fields["model"] = model
    if isinstance(error, BadRequest) and error.where is not None:
        fields["where"] = error.where[:MAX_MESSAGE_CHARACTERS]
    return orjson.dumps({"error": fields})
