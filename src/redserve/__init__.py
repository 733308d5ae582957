"""redserve: RED metrics for any ASGI app, dynamic batching for any function, and a model server made of both.

Three small libraries that know nothing of each other (metrics, batching, engine), thin adapters on top of them (the
middleware, the wire formats), and one room that wires them (the server):

    floor 5   cli
    floor 4   server · offline                   FastAPI, uvicorn · rows of a file, without a server
    floor 3   models · bench                     loads, warms, drains · the load tester
    floor 2   middleware, answers · protocol     ASGI · bytes to tensors
    floor 1   metrics · batching · engine        prometheus_client · nothing · numpy (onnxruntime in one file)
    floor 0   errors

A file imports its own room and lower floors; never sideways, never up. What this page exports needs prometheus_client
alone. The modules that every request passes may be compiled (`compiled.py`).
"""

from redserve.answers import answer_error
from redserve.batching import (
    Answer,
    Batcher,
    BatchObserver,
    BatchPolicy,
    BatchRecorder,
    BatchReport,
    Ticket,
    batched,
)
from redserve.errors import (
    BadRequest,
    ClientError,
    DeadlineExpired,
    Forbidden,
    MethodNotAllowed,
    ModelError,
    ModelLoadError,
    ModelNotReady,
    NotFound,
    Overloaded,
    PredictedLate,
    QueueFull,
    RedserveError,
    Rejected,
    RunTimeout,
    ShuttingDown,
    SlowRequest,
    TooLarge,
    TooManyRows,
    TooMuchToRead,
    Unauthorized,
    UnknownModel,
    UnsupportedMediaType,
    WrongResultCount,
)
from redserve.metrics import BatchMetrics, ModelMetrics, REDMetrics, latency_buckets, metrics_app
from redserve.middleware import REDMiddleware, set_error, set_model, set_route, trace_exemplar

__all__ = [
    "Answer",
    "BadRequest",
    "BatchMetrics",
    "BatchObserver",
    "BatchPolicy",
    "BatchRecorder",
    "BatchReport",
    "Batcher",
    "ClientError",
    "DeadlineExpired",
    "Forbidden",
    "MethodNotAllowed",
    "ModelError",
    "ModelLoadError",
    "ModelMetrics",
    "ModelNotReady",
    "NotFound",
    "Overloaded",
    "PredictedLate",
    "QueueFull",
    "REDMetrics",
    "REDMiddleware",
    "RedserveError",
    "Rejected",
    "RunTimeout",
    "ShuttingDown",
    "SlowRequest",
    "Ticket",
    "TooLarge",
    "TooManyRows",
    "TooMuchToRead",
    "Unauthorized",
    "UnknownModel",
    "UnsupportedMediaType",
    "WrongResultCount",
    "answer_error",
    "batched",
    "latency_buckets",
    "metrics_app",
    "set_error",
    "set_model",
    "set_route",
    "trace_exemplar",
]
