"""Which requests are for inference: their paths, and what they name.

/predict                                          the only model
/predict/{model}
/v2/models/{model}/infer                          Open Inference Protocol
/v2/models/{model}/versions/{version}/infer
"""

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
