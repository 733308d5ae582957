"""What may differ from model to model: the server's settings say it for all, a model's `config.toml` for one.

# <repository>/resnet/config.toml; every line may be left out
max_batch_size = 16             # and the other settings below, by their names in `redserve serve --help`
versions = "latest"             # the newest; "all", [1, 3], or {latest = 2}

[labels]                        # names of classes, by output: a list, or a file beside this one, a name a line
probabilities = "labels.txt"

[sample]                        # one row that is known to run, by input, where no made-up one does
ids = [[101, 2023, 102]]
"""

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, ValidationError

from redserve.batching import BatchPolicy
from redserve.engine.base import Engine
from redserve.engine.onnx_options import Option, usable_cpus
from redserve.models import ModelOptions, Plan, VersionPolicy

Device = Literal["auto", "cuda", "cpu"]


class ModelSettings(BaseModel):
    """How a model is loaded and served."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,  # they are the help texts of the command line
    )

    device: Device = "auto"
    """auto takes a GPU that works; cuda refuses to start without one"""
    device_id: int = Field(0, ge=0)
    """which GPU"""
    instances: int = Field(1, ge=1, le=64)
    """engines that run batches of a model side by side, fed by one queue"""
    intra_op_threads: int | None = Field(None, ge=1)
    """CPU threads that share one run (default: all cores, shared among the instances)"""
    session_options: dict[str, Option] = {}
    """an entry of ONNX Runtime's session configuration; may be repeated"""
    provider_options: dict[str, Option] = {}
    """an option of the execution provider; may be repeated"""
    batching: Literal["auto", "on", "off"] = "auto"
    """whether requests share a run; auto asks the model"""
    max_batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """rows run together, at most; auto measures which size is best"""
    max_queue_delay_ms: float = Field(0.0, ge=0, le=60_000)
    """how long the oldest row waits for company; 0 runs what is there"""
    slo_ms: float | None = Field(None, gt=0, le=3_600_000)
    """answer within this or refuse: the budget of requests that name none, and the bound of the queue"""
    request_timeout_ms: float = Field(30_000.0, gt=0, le=3_600_000)
    """budget of a request that names none in X-Request-Timeout-Ms, without --slo-ms"""
    max_queue_rows: int = Field(1024, ge=1)
    """rows that may wait; more are refused"""
    max_queue_mib: int = Field(256, ge=1)
    """MiB of tensors that may wait, and of bodies that may be on their way"""
    max_run_s: float = Field(60.0, gt=0)
    """seconds after which a batch is cut off"""
    inline_below_ms: float = Field(0.2, ge=0, le=1)
    """run batches on the event loop itself where the largest takes less, 99 times of 100; 0 never does"""
    finite: bool | None = None
    """refuse rows with NaN or infinity (default: at /predict yes, under /v2 no)"""

    def model_options(self) -> ModelOptions:
        """How the model is served; milliseconds become seconds."""
        return ModelOptions(
            max_batch_size=None if self.max_batch_size == "auto" else self.max_batch_size,
            policy=BatchPolicy(
                max_queue_delay_s=self.max_queue_delay_ms / 1000,
                max_queue_rows=self.max_queue_rows,
                max_queue_bytes=self.max_queue_mib * 2**20,
                slo_s=None if self.slo_ms is None else self.slo_ms / 1000,
            ),
            finite=self.finite,
            inline_below_s=self.inline_below_ms / 1000 or None,
            max_run_s=self.max_run_s,
            instances=self.instances,
            timeout_s=(self.slo_ms or self.request_timeout_ms) / 1000,
        )

    def load_engine(self, path: Path) -> Engine:
        """Load an ONNX file; blocks.

        Raises:
            ModelLoadError: It cannot be loaded.
        """
        from redserve.engine.onnx_runtime import OnnxRuntimeEngine  # seconds to import, and an extra of its own

        threads = self.intra_op_threads
        if threads is None and self.instances > 1:
            threads = max(1, usable_cpus() // self.instances)
        return OnnxRuntimeEngine.load(
            path,
            device=self.device,
            device_id=self.device_id,
            intra_op_threads=threads,
            provider_options=self.provider_options,
            session_options=self.session_options,
            batching=self.batching,
        )


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
    labels: dict[str, list[str] | str] = {}
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


def plan(name: str, config: Path | None, *, defaults: ModelSettings, device: Device | None = None) -> Plan:
    """What `config`, where there is one, says of a model; blocks. Fits `models.source.Configure`.

    Args:
        name: The model's.
        config: The file, where it has one.
        defaults: What holds where that says nothing.
        device: In place of what it says.

    Raises:
        ValueError: A line is wrong or unknown; names the file and the key.
        OSError: It, or a file that it names, cannot be read.
    """
    settings = ModelConfig.of(defaults) if config is None else ModelConfig.read(config, defaults)
    if device is not None:
        settings = settings.model_copy(update={"device": device})
    return Plan(load_engine=settings.load_engine, options=settings.model_options(), versions=settings.versions)


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
