"""Every way to fail on purpose: each class knows its HTTP status, its outcome and its reason.

RedserveError                     500  error         server_error
├── ClientError                   400  client_error  client_error
│   ├── BadRequest                400  client_error  bad_request
│   ├── Unauthorized              401  client_error  unauthorized
│   ├── Forbidden                 403  client_error  unauthorized
│   ├── UnknownModel              404  client_error  unknown_model
│   ├── NotFound                  404  client_error  not_found
│   ├── MethodNotAllowed          405  client_error  method_not_allowed
│   ├── SlowRequest               408  client_error  slow_request
│   ├── SlowHeaders               408  client_error  slow_request
│   ├── TooLarge                  413  client_error  too_large
│   ├── TooManyRows               413  client_error  too_large
│   ├── TooMuchToRead             413  client_error  too_large
│   ├── UnsupportedMediaType      415  client_error  unsupported_media_type
│   └── HeadersTooLarge           431  client_error  headers_too_large
├── Rejected                      503  rejected      rejected         a retry makes sense
│   ├── Overloaded                503  rejected      rejected         429 where the server is told so
│   │   ├── QueueFull             503  rejected      queue_full
│   │   └── PredictedLate         503  rejected      predicted_late
│   ├── TooManyConnections        503  rejected      too_many_connections
│   ├── ModelNotReady             503  rejected      model_not_ready
│   └── ShuttingDown              503  rejected      shutting_down
├── DeadlineExpired               504  expired       deadline_expired it never ran
├── ModelError                    500  error         model_error      the model, or its function, failed
│   ├── WrongResultCount          500  error         model_error      it answered another number of rows
│   └── RunTimeout                500  error         run_timeout
└── ModelLoadError                no request has failed: the model could not be loaded

`outcome_of` classifies the statuses that other people's applications answer with.
"""

from typing import ClassVar


class RedserveError(Exception):
    """Base of every error this package raises on purpose.

    Attributes:
        status: The HTTP status a client sees.
        outcome: How the request ended: `client_error`, `rejected`, `expired` or `error`.
        reason: Why, as the label of `inference_errors_total`.
    """

    status: ClassVar[int] = 500
    outcome: ClassVar[str] = "error"
    reason: ClassVar[str] = "server_error"


class ClientError(RedserveError):
    """The request was wrong; sending it again will not help."""

    status, outcome, reason = 400, "client_error", "client_error"


class BadRequest(ClientError):
    """The body could not be read, or does not fit the model.

    Attributes:
        where: The place of the mistake as a JSON path (`$.instances[3]`), or `None`.
    """

    reason = "bad_request"

    def __init__(self, message: str, *, where: str | None = None) -> None:
        super().__init__(message)
        self.where = where


class Unauthorized(ClientError):
    """No key came with the request, or none that is known."""

    status, reason = 401, "unauthorized"


class Forbidden(ClientError):
    """The key is known, but not for this."""

    status, reason = 403, "unauthorized"


class UnknownModel(ClientError):
    """No model of this name, or of this version of it, is served."""

    status, reason = 404, "unknown_model"

    def __init__(self, name: str, *, version: str = "") -> None:
        wanted = f"version {version!r} of model {name!r}" if version else f"model named {name!r}"
        super().__init__(f"no {wanted} is served here")
        self.name = name
        self.version = version


class NotFound(ClientError):
    """Nothing is served at this path."""

    status, reason = 404, "not_found"


class MethodNotAllowed(ClientError):
    """The path is served, but not for this method.

    Attributes:
        allowed: The methods that are, for the `Allow` header.
    """

    status, reason = 405, "method_not_allowed"

    def __init__(self, method: str, *, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{method} is not allowed here, use {' or '.join(allowed)}")
        self.allowed = allowed


class SlowRequest(ClientError):
    """The body came too slowly."""

    status, reason = 408, "slow_request"

    def __init__(self, received_bytes: int) -> None:
        super().__init__(f"the body came too slowly: {received_bytes} bytes so far")
        self.received_bytes = received_bytes


class SlowHeaders(ClientError):
    """The headers came too slowly."""

    status, reason = 408, "slow_request"

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"headers took longer than {limit_s:g} s")
        self.limit_s = limit_s


class TooLarge(ClientError):
    """The body is longer than the server takes."""

    status, reason = 413, "too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the body is longer than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class TooManyRows(ClientError):
    """The request alone has more rows than may wait, so that it could never be taken."""

    status, reason = 413, "too_large"

    def __init__(self, rows: int, *, limit: int) -> None:
        super().__init__(f"the request has {rows} rows, and only {limit} may wait: send fewer at a time")
        self.rows = rows
        self.limit = limit


class TooMuchToRead(ClientError):
    """Reading the body would make more than may be held in memory, or than may wait."""

    status, reason = 413, "too_large"


class UnsupportedMediaType(ClientError):
    """The body's content type, or its encoding, is not one this path reads."""

    status, reason = 415, "unsupported_media_type"


class HeadersTooLarge(ClientError):
    """Request line and headers, or the framing of a body, are longer or more than the server takes."""

    status, reason = 431, "headers_too_large"


class Rejected(RedserveError):
    """Turned away unharmed; sending it again later may help."""

    status, outcome, reason = 503, "rejected", "rejected"


class Overloaded(Rejected):
    """Turned away at admission, because too much waits already.

    Attributes:
        retry_after_s: When a retry may be welcome; `None` where nothing is known.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFull(Overloaded):
    """The request does not fit beside what already waits.

    Attributes:
        waiting: How much waits now.
        limit: How much may wait.
        unit: Of both: `rows` or `bytes`.
    """

    reason = "queue_full"

    def __init__(self, *, waiting: int, limit: int, unit: str = "rows", retry_after_s: float | None = None) -> None:
        super().__init__(f"the queue is full: {waiting} of {limit} {unit} already wait", retry_after_s=retry_after_s)
        self.waiting = waiting
        self.limit = limit
        self.unit = unit


class PredictedLate(Overloaded):
    """The request would be answered after its deadline, by all that is known about what waits and how long it takes."""

    reason = "predicted_late"

    def __init__(self, *, late_s: float) -> None:
        super().__init__(f"the answer may come {1000 * late_s:.0f} ms after its deadline", retry_after_s=late_s)
        self.late_s = late_s


class TooManyConnections(Rejected):
    """As many connections are open as may be."""

    reason = "too_many_connections"

    def __init__(self) -> None:
        super().__init__("too many connections are open")


class ModelNotReady(Rejected):
    """The model is still loading or warming up, or could not be loaded."""

    reason = "model_not_ready"


class ShuttingDown(Rejected):
    """No new work is taken any more."""

    reason = "shutting_down"

    def __init__(self, message: str = "shutting down, no new work is taken") -> None:
        super().__init__(message)


class DeadlineExpired(RedserveError):
    """The deadline passed, or could not be met any more, while the request waited: it never ran."""

    status, outcome, reason = 504, "expired", "deadline_expired"

    def __init__(self, message: str = "the deadline passed before the request could run") -> None:
        super().__init__(message)


class ModelError(RedserveError):
    """The model, or the batched function, failed on this request."""

    reason = "model_error"


class WrongResultCount(ModelError):
    """A batch came back with another number of results than it had: no result can be trusted to its request."""

    def __init__(self, *, expected: int, got: int) -> None:
        super().__init__(f"a batch of {expected} came back with {got} results")
        self.expected = expected
        self.got = got


class RunTimeout(ModelError):
    """A batch ran longer than `max_run_s` and was given up."""

    reason = "run_timeout"

    def __init__(self, max_run_s: float) -> None:
        super().__init__(f"the batch ran longer than {max_run_s:g} s")
        self.max_run_s = max_run_s


class ModelLoadError(RedserveError):
    """The model cannot be loaded as asked: the file, the device or the settings are wrong."""

    reason = "model_load_error"


_REASON_BY_STATUS = {
    401: "unauthorized",
    403: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    408: "slow_request",
    413: "too_large",
    415: "unsupported_media_type",
    431: "headers_too_large",
}


def outcome_of(status: int) -> tuple[str, str]:
    """Classify the status that an application answered with, when it named no reason itself.

    Returns:
        Outcome and reason; the reason of an `ok` is empty.
    """
    if status < 400:
        return "ok", ""
    if status < 500:
        if status == 429:
            return "rejected", "rate_limited"
        if status == 400 or status == 422:
            return "client_error", "bad_request"
        return "client_error", _REASON_BY_STATUS.get(status, "client_error")
    return "error", "server_error"
