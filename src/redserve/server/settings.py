"""What the server is told: flags, then `REDSERVE_*` variables, then a TOML file, then defaults.

The only file that reads the environment, and the only one that speaks milliseconds: they become seconds here.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from redserve.batching import BatchPolicy
from redserve.models import ModelOptions


class Settings(BaseSettings):
    """Every setting of `redserve serve`; a wrong or unknown one is an error that names it."""

    model_config = SettingsConfigDict(
        env_prefix="REDSERVE_", extra="forbid", frozen=True, env_ignore_empty=True, protected_namespaces=()
    )

    model: Annotated[
        Path | None, Field(description="the ONNX file to serve; without one, the embedded digits demo")
    ] = None
    name: Annotated[
        str | None,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="its name in URLs and labels (default: that of the file)"),
    ] = None
    host: Annotated[str, Field(description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="port to listen on; 0 takes a free one")] = 8000
    workers: Annotated[int, Field(description="processes; more than one is refused for now")] = 1
    device: Annotated[
        Literal["auto", "cuda", "cpu"],
        Field(description="auto takes a GPU that works; cuda refuses to start without one"),
    ] = "auto"
    device_id: Annotated[int, Field(ge=0, description="which GPU")] = 0
    intra_op_threads: Annotated[int | None, Field(ge=1, description="CPU threads that share one run (default: all cores)")] = None
    session_options: Annotated[dict[str, str], Field(description="an entry of ONNX Runtime's session configuration; may be repeated")] = {}
    provider_options: Annotated[dict[str, str], Field(description="an option of the execution provider; may be repeated")] = {}
    batching: Annotated[
        Literal["auto", "on", "off"], Field(description="whether requests share a run; auto asks the model")
    ] = "auto"
    max_batch_size: Annotated[
        Annotated[int, Field(ge=1)] | Literal["auto"],
        Field(description="rows run together, at most; auto measures which size is best"),
    ] = "auto"
    max_queue_delay_ms: Annotated[
        float, Field(ge=0, le=60_000, description="how long the oldest row waits for company; 0 runs what is there")
    ] = 0.0
    max_queue_rows: Annotated[int, Field(ge=1, description="rows that may wait; more are refused with 503")] = 1024
    max_queue_mib: Annotated[int, Field(ge=1, description="MiB of tensors that may wait")] = 256
    max_body_mib: Annotated[int, Field(ge=1, le=2048, description="MiB that a request body may have")] = 64
    max_run_s: Annotated[float, Field(gt=0, description="seconds after which a batch is cut off")] = 60.0
    grace_s: Annotated[int, Field(ge=0, description="seconds for what is in flight, after SIGTERM")] = 30
    finite: Annotated[bool, Field(description="refuse rows with NaN or infinity")] = True
    latency_slo_ms: Annotated[
        float | None, Field(gt=0, description="make this latency an exact histogram bound, with fine ones around it")
    ] = None
    access_log: Annotated[bool, Field(description="one JSON line a request on standard output")] = False
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Field(description="of the server's own log, on standard error")] = (
        "info"
    )

    @field_validator("workers")
    @classmethod
    def _one_worker(cls, value: int) -> int:
        if value != 1:
            raise ValueError("one process only, for now: each worker would have a queue and metrics of its own")
        return value

    @classmethod
    def load(cls, flags: Mapping[str, Any] | None = None) -> Self:
        """Settings of `flags` (wins), the environment, and the TOML file that `config` or `REDSERVE_CONFIG` names.

        Raises:
            ValueError: A value is wrong or unknown; the message names it.
        """
        values = {key: value for key, value in (flags or {}).items() if value is not None}
        path = values.pop("config", None) or os.environ.get("REDSERVE_CONFIG")
        if path is not None and not Path(path).is_file():
            raise ValueError(f"there is no configuration file {str(path)!r}")
        loader = type(cls.__name__, (cls,), {"model_config": SettingsConfigDict(toml_file=path)})
        try:
            loaded: Self = loader(**values)
        except ValidationError as error:
            wrong = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
            raise ValueError("; ".join(wrong)) from error
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path}: {error}") from error
        return loaded

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, TOML, in this order; no `.env`, no secrets folder."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    def model_options(self) -> ModelOptions:
        """The part that says how the model is served; milliseconds become seconds."""
        return ModelOptions(
            max_batch_size=None if self.max_batch_size == "auto" else self.max_batch_size,
            policy=BatchPolicy(
                max_queue_delay_s=self.max_queue_delay_ms / 1000,
                max_queue_rows=self.max_queue_rows,
                max_queue_bytes=self.max_queue_mib * 2**20,
            ),
            finite=self.finite,
            max_run_s=self.max_run_s,
        )
