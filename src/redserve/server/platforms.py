"""What managed platforms ask of a container that serves one model: where it listens, under which paths, what it serves.

    platform     port                           inference            health                      the model
    sagemaker    SAGEMAKER_BIND_TO_PORT, 8080   POST /invocations    GET /ping                   /opt/ml/model
    vertex       AIP_HTTP_PORT                  AIP_PREDICT_ROUTE    AIP_HEALTH_ROUTE            in the image, mounted
    azureml      5001                           POST /score          GET / lives, /readyz ready  AZUREML_MODEL_DIR

All of these are defaults: what a user sets by a flag, a `REDSERVE_*` variable or a line of the TOML file holds instead.

SageMaker starts the image with the one argument `serve`, gives `/ping` 2 s and a request 60 s, and sends SIGKILL 30 s
after SIGTERM. It drops all headers but a few: neither keys nor `X-Request-Timeout-Ms` come through. A second port, for
which `SAGEMAKER_SAFE_PORT_RANGE` is, nobody here needs. `SAGEMAKER_BASE_DIR` moves `/opt/ml`.
Source: Amazon SageMaker AI Developer Guide, "Custom Inference Code with Hosting Services", and for the port "Run
Real-time Predictions with an Inference Pipeline"; aws/sagemaker-inference-toolkit, `parameters.py`, for the folder.

Vertex AI names the port and both paths. Where the model was uploaded without paths of its own, both of them are
`/v1/endpoints/ENDPOINT/deployedModels/DEPLOYED_MODEL:predict`: GET asks for health, POST for predictions, of 1.5 MB at
most. What lies at `AIP_STORAGE_URI`, in Cloud Storage, is not downloaded here.
Source: Google Cloud, "Custom container requirements"; `google/cloud/aiplatform/v1/model.proto`, ModelContainerSpec;
"gcloud ai endpoints predict", for the size.

Azure ML lets a deployment's `inference_config` name port and paths; these are those of its own inference server.
Source: Microsoft Learn, "Use a custom container to deploy a model to an online endpoint"; for port and paths
azureml-inference-server-http, "Server Routes".
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from redserve.server.targets import ROUTE

Platform = Literal["sagemaker", "vertex", "azureml"]

SAGEMAKER_GRACE_S = 20
"""With the drain delay of `examples/Containerfile`, 5 s, it is over before the SIGKILL."""


@dataclass(frozen=True)
class _Variable:
    """A setting that the platform's environment says."""

    name: str
    default: str = ""


_CONTRACTS: Mapping[Platform, Mapping[str, str | int | _Variable]] = {
    "sagemaker": {
        "port": _Variable("SAGEMAKER_BIND_TO_PORT", "8080"),
        "predict_route": "/invocations",
        "ready_route": "/ping",
        "grace_s": SAGEMAKER_GRACE_S,
    },
    "vertex": {
        "port": _Variable("AIP_HTTP_PORT"),
        "predict_route": _Variable("AIP_PREDICT_ROUTE"),
        "ready_route": _Variable("AIP_HEALTH_ROUTE"),
    },
    "azureml": {"port": 5001, "predict_route": "/score", "live_route": "/"},
}


def defaults_of(platform: Platform, environment: Mapping[str, str], *, given: Container[str]) -> dict[str, Any]:
    """The settings that a platform asks for, by name, without those that are given.

    Args:
        platform: Which one.
        environment: Its variables.
        given: Settings that the user has made; what the platform says of them is not looked at.

    Raises:
        ValueError: A variable is missing or wrong; names it.
    """
    asked = {"host": "0.0.0.0", **_CONTRACTS[platform]}
    return {
        setting: _read(platform, environment, setting, value) if isinstance(value, _Variable) else value
        for setting, value in asked.items()
        if setting not in given
    }


def find_model(platform: Platform, environment: Mapping[str, str]) -> Path:
    """The one ONNX file where the platform puts it; blocks.

    Raises:
        ValueError: There is none, or there are several.
    """
    if platform == "vertex":
        uri = environment.get("AIP_STORAGE_URI")
        why = f"what AIP_STORAGE_URI names, {uri}, is not downloaded" if uri else "it says of no model where it lies"
        raise _NoModel(platform, f"{why}: put the file into the image or mount it")
    if platform == "sagemaker":
        return _only_file(platform, Path(environment.get("SAGEMAKER_BASE_DIR") or "/opt/ml", "model"))
    folder = environment.get("AZUREML_MODEL_DIR")
    if not folder:
        raise _NoModel(platform, "AZUREML_MODEL_DIR is not set")
    return _only_file(platform, Path(folder))


class _NoModel(ValueError):
    def __init__(self, platform: Platform, why: str) -> None:
        super().__init__(f"platform {platform}: {why}; name the model's file by REDSERVE_MODEL")


def _read(platform: Platform, environment: Mapping[str, str], setting: str, variable: _Variable) -> str:
    value = environment.get(variable.name) or variable.default
    if not value:
        raise ValueError(f"platform {platform}: {variable.name} is not set, which the platform does by itself")
    if setting == "port":
        is_right = value.isascii() and value.isdigit() and 1 <= int(value[:6]) <= 65_535
    else:
        is_right = ROUTE.fullmatch(value) is not None
    if not is_right:
        raise ValueError(f"platform {platform}: {variable.name}={value[:80]!r} is no {setting.rpartition('_')[2]}")
    return value


def _only_file(platform: Platform, folder: Path) -> Path:
    found = [
        path.relative_to(folder)
        for path in sorted(folder.rglob("*.onnx"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)  # macOS' tar adds `._model.onnx`
    ]
    if not found:
        raise _NoModel(platform, f"there is no .onnx file in {folder}")
    if len(found) > 1:
        names = ", ".join(map(str, found[:5]))
        raise _NoModel(platform, f"it asks for one model, and {folder} has {len(found)}: {names}")
    return folder / found[0]
