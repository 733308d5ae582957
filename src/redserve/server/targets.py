"""Which requests are for inference: their paths, and what they name.

/predict                                          the only model
/predict/{model}
/v2/models/{model}/infer                          Open Inference Protocol
/v2/models/{model}/versions/{version}/infer
`Aliases.predict`                                 the only model, at the path that a platform asks for
"""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class Target(NamedTuple):
    """Where a request for inference goes.

    Attributes:
        route: The template of its path.
        model: The model's name; empty is the only one.
        version: The model's version; empty is whichever is served.
        is_open_inference: It speaks the Open Inference Protocol, else that of `/predict`.
    """

    route: str
    model: str = ""
    version: str = ""
    is_open_inference: bool = False


ONLY_MODEL = Target("/predict")

ROUTE = re.compile(r"/[A-Za-z0-9._~:@!$&'()*+,;=/-]{0,999}")
"""A path that one may add: it is a label and a template of Starlette's, so neither braces nor anything encoded."""


@dataclass(frozen=True, kw_only=True)
class Aliases:
    """Paths that a platform asks for, beside the server's own; a health check may have the path of inference.

    Attributes:
        predict: Runs the only model, as `/predict` does.
        ready: Whether it is ready, as `/readyz` says it.
        live: Whether the process answers, as `/livez` says it.
    """

    predict: str | None = None
    ready: str | None = None
    live: str | None = None

    @cached_property
    def health(self) -> frozenset[str]:
        """The paths of health checks."""
        return frozenset(path for path in (self.ready, self.live) if path is not None)

    def target_of(self, path: str) -> Target | None:
        """As `target_of`, with the paths of the platform."""
        target = target_of(path)
        return Target(path) if target is None and path == self.predict else target

    def is_health_check(self, method: str, path: str) -> bool:
        """Whether a request is one of these checks."""
        return path in self.health and method in ("GET", "HEAD")


NO_ALIASES = Aliases()

_MODELS = "/v2/models/"
_INFER = "/infer"
_OF_MODEL = f"{_MODELS}{{model}}{_INFER}"
_OF_VERSION = f"{_MODELS}{{model}}/versions/{{version}}{_INFER}"


def target_of(path: str) -> Target | None:
    """Where a request for `path` goes; `None` when it asks for no inference. The model may well not exist."""
    if path == ONLY_MODEL.route:
        return ONLY_MODEL
    name = path.removeprefix("/predict/")
    if name != path:
        return None if name == "" or "/" in name else Target("/predict/{model}", name)
    if path.startswith(_MODELS) and path.endswith(_INFER):
        parts = path[len(_MODELS) : -len(_INFER)].split("/")
        if "" not in parts:
            if len(parts) == 1:
                return Target(_OF_MODEL, parts[0], is_open_inference=True)
            if len(parts) == 3 and parts[1] == "versions":
                return Target(_OF_VERSION, parts[0], parts[2], is_open_inference=True)
    return None


def is_open_inference(path: str) -> bool:
    """Whether `path` belongs to the Open Inference Protocol, served or not: its errors have a form of their own."""
    return path == "/v2" or path.startswith("/v2/")
