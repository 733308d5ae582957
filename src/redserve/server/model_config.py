"""The `config.toml` of one model: what the server's settings say for all, and what only a model has.

# <repository>/resnet/config.toml; every line may be left out
max_batch_size = 16             # and the other settings below, by their names in `redserve serve --help`
versions = "latest"             # the newest; "all", [1, 3], or {latest = 2}
length_buckets = [16, 32, 64]   # rows of different lengths share a batch

[labels]                        # names of classes, by output: a list, or a file beside this one, a name a line
probabilities = "labels.txt"

[sample]                        # one row that is known to run, by input, where no made-up one does
ids = [[101, 2023, 102]]
"""

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, InstanceOf, ValidationError

from redserve.engine.onnx_session import Device
from redserve.models import ModelOptions, Plan, VersionPolicy
from redserve.server.gpu_budget import GpuBudget
from redserve.server.model_settings import ModelSettings


def _version_policy(value: object) -> VersionPolicy:
    match value:
        case "latest":
            return VersionPolicy()
        case "all":
            return VersionPolicy(latest=None)
        case {"latest": int(number), **rest} if number >= 1 and not rest and not isinstance(number, bool):
            return VersionPolicy(latest=number)
        case [_, *_] if all(isinstance(number, int) and number >= 1 for number in value):
            return VersionPolicy(latest=None, only=frozenset(map(str, value)))
    raise ValueError('write "latest", "all", a list of numbers, or {latest = 2}')


class ModelConfig(ModelSettings):
    """The `config.toml` of one model."""

    versions: Annotated[InstanceOf[VersionPolicy], BeforeValidator(_version_policy)] = VersionPolicy()
    """which versions are served: "latest", "all", [1, 3] or {latest = 2}"""
    labels: dict[str, list[str] | str] = Field(default_factory=dict)
    """names of the classes of an output: a list, or a file beside this one with a name a line"""
    sample: dict[str, Any] | None = None
    """one row that is known to run, as (nested) lists by input"""

    @classmethod
    def of(cls, defaults: ModelSettings, given: Mapping[str, Any] = MappingProxyType({})) -> Self:
        """What is given, and of the rest the defaults.

        Raises:
            ValidationError: Something given is wrong or unknown.
        """
        return cls(**({name: getattr(defaults, name) for name in ModelSettings.model_fields} | dict(given)))

    @classmethod
    def read(cls, path: Path, defaults: ModelSettings) -> Self:
        """What the file says, and of the rest the defaults; blocks.

        Raises:
            ValueError: A line is wrong or unknown; names the file and the key.
            OSError: It, or a file that it names, cannot be read.
        """
        try:
            given = tomllib.loads(path.read_text("utf-8"))
            config = cls.of(defaults, given)
        except ValidationError as error:
            known = ", ".join(sorted(cls.model_fields))
            wrong = [
                f"{item['loc'][0]}: "
                + (
                    f"unknown key; known are {known}"
                    if item["type"] == "extra_forbidden"
                    else item["msg"].removeprefix("Value error, ")
                )
                for item in error.errors()
            ]
            raise ValueError(f"{path}: {'; '.join(wrong)}") from error
        except ValueError as error:  # no TOML, or no UTF-8
            raise ValueError(f"{path}: {error}") from error
        labels = {
            output: names if isinstance(names, list) else _lines(path.parent / names)
            for output, names in config.labels.items()
        }
        return config.model_copy(update={"labels": labels})

    def model_options(self) -> ModelOptions:
        """How the model is served; milliseconds become seconds."""
        return replace(super().model_options(), labels=self.labels, sample=self.sample)


def plan(
    name: str,
    config: Path | None,
    *,
    defaults: ModelSettings,
    device: Device | None = None,
    budget: GpuBudget | None = None,
) -> Plan:
    """What `config`, where there is one, says of a model; blocks. Fits `models.source.Configure`.

    Args:
        name: The model's.
        config: The file, where it has one.
        defaults: What holds where that says nothing.
        device: In place of what it says.
        budget: What all models may take of a GPU.

    Raises:
        ValueError: A line is wrong or unknown; names the file and the key.
        OSError: It, or a file that it names, cannot be read.
    """
    settings = ModelConfig.of(defaults) if config is None else ModelConfig.read(config, defaults)
    if device is not None:
        settings = settings.model_copy(update={"device": device})
    load_engine = partial(settings.load_engine, budget=budget)
    return Plan(load_engine=load_engine, options=settings.model_options(), versions=settings.versions)


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
