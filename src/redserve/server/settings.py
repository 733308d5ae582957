"""What the server is told: flags, then `REDSERVE_*` variables, then a TOML file, then the platform, then defaults.

The only file that reads the environment. Milliseconds become seconds here, and in `model_settings.py`, which has the
settings that may differ from model to model.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from redserve.server.api_keys import SCOPES, ApiKeys, Keyring
from redserve.server.deadlines import Deadlines
from redserve.server.model_settings import ModelSettings
from redserve.server.platforms import Platform, defaults_of, find_model
from redserve.server.targets import ROUTE, Aliases

SECRETS = frozenset(f"{scope}_keys" for scope in SCOPES)
"""Settings that are no flags: whoever may list processes sees those."""

_NEVER_EMPTY = frozenset(f"redserve_{name}" for name in (*SECRETS, "api_keys_file"))
"""Variables that mean a secret that did not arrive when they are empty; the others then mean nothing."""

Route = Annotated[str, Field(pattern=f"^{ROUTE.pattern}$")]

_PAGES = ("/metrics", "/docs", "/openapi.json")


class Settings(ModelSettings, BaseSettings):
    """Every setting of `redserve serve`; a wrong one, and an unknown flag or line of the file, is refused by name."""

    model_config = SettingsConfigDict(
        env_prefix="REDSERVE_",
        env_ignore_empty=True,
        hide_input_in_errors=True,  # it may be a key
    )

    model: Path | None = None
    """the ONNX file to serve; without one, and without --repository, the embedded digits demo"""
    config: Path | None = None
    """the TOML file to read settings from"""
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """its name in URLs and labels (default: that of the file)"""
    repository: Path | None = None
    """a folder of models to serve in place of one: NAME/VERSION/model.onnx, or NAME.onnx"""
    repository_mode: Literal["none", "poll", "explicit"] = "none"
    """when that folder counts: at start; every --poll-s seconds; or by requests to load and unload"""
    poll_s: float = Field(5.0, gt=0)
    """seconds between two looks at the folder"""
    load_models: str = ""
    """names of the models that are loaded at start in the mode explicit, separated by commas"""
    gpu_budget_mib: int | None = Field(None, ge=1)
    """MiB that all models may take of a GPU together; those without a gpu_memory_mib share what the others leave"""
    host: str = "127.0.0.1"
    """address to listen on"""
    port: int = Field(8000, ge=0, le=65535)
    """port to listen on; 0 takes a free one"""
    platform: Platform | None = None
    """sagemaker, vertex or azureml: address, paths and model are as that platform asks, where nothing else is said"""
    predict_route: Route | None = None
    """one more path that runs the model, besides /predict"""
    ready_route: Route | None = None
    """one more path that says whether it is ready, besides /readyz"""
    live_route: Route | None = None
    """one more path that says that the process answers, besides /livez"""
    api_keys_file: Path | None = None
    """a TOML file with lists of API keys: inference, metrics, admin; what has none is open to all"""
    inference_keys: SecretStr | None = None
    """API keys for inference, separated by commas"""
    metrics_keys: SecretStr | None = None
    """API keys for metrics, separated by commas"""
    admin_keys: SecretStr | None = None
    """API keys for the index and the documentation, separated by commas"""
    workers: int = Field(1, ge=1, le=256)
    """processes that serve side by side on one port, each with its own models and queues; the cores are shared out"""
    max_request_timeout_ms: float = Field(60_000.0, gt=0, le=3_600_000)
    """budget of a request that names more"""
    overload_status: int = 503
    """status of what is refused because too much waits: 503, or 429 for load balancers that drop servers over a 503"""
    max_body_mib: int = Field(16, ge=1, le=2048)
    """MiB that a request body may have"""
    body_timeout_s: float = Field(20.0, gt=0)
    """seconds for a request body, and one more for each 1,000 bytes of it"""
    max_header_kib: int = Field(64, ge=1, le=1024)
    """KiB that request line and headers may have"""
    header_timeout_s: float = Field(10.0, gt=0)
    """seconds for the headers of a request"""
    write_timeout_s: float = Field(20.0, gt=0)
    """seconds for a client to take its answers, and one more for each 1,000 bytes that it takes"""
    max_connections: int = Field(4096, ge=1)
    """connections that may be open; more are refused with 503"""
    drain_delay_s: float = Field(0.0, ge=0)
    """seconds after SIGTERM in which it is not ready but still serves, for load balancers to notice"""
    grace_s: int = Field(30, ge=0)
    """seconds for what is in flight, after SIGTERM"""
    latency_slo_ms: float | None = Field(None, gt=0)
    """make this latency an exact histogram bound, with fine ones around it (default: that of --slo-ms)"""
    access_log: bool = False
    """one JSON line a request on standard output"""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """of the server's own log, on standard error"""

    @field_validator("repository")
    @classmethod
    def _one_or_the_other(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and (info.data.get("model") is not None or info.data.get("name") is not None):
            raise ValueError("serve one model or a repository, not both: its folders and files have the names")
        return value

    @field_validator("repository_mode")
    @classmethod
    def _has_a_repository(cls, value: str, info: ValidationInfo) -> str:
        if value != "none" and info.data.get("repository") is None:
            raise ValueError("there is no repository: name one")
        return value

    @field_validator("platform")
    @classmethod
    def _serves_one(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("repository") is not None:
            raise ValueError(f"{value} asks for one model, which a repository is not")
        return value

    @field_validator("predict_route", "ready_route", "live_route")
    @classmethod
    def _is_free(cls, value: str | None, info: ValidationInfo) -> str | None:
        taken = (*_PAGES, "/", "/livez", "/readyz") if info.field_name == "predict_route" else _PAGES
        if value in taken:
            raise ValueError(f"{value} is a page of the server's own")
        return value

    @field_validator("load_models")
    @classmethod
    def _is_explicit(cls, value: str, info: ValidationInfo) -> str:
        if value and info.data.get("repository_mode") != "explicit":
            raise ValueError("is for the repository mode explicit; in the others all models are loaded")
        return value

    @field_validator("workers")
    @classmethod
    def _goes_together(cls, value: int, info: ValidationInfo) -> int:
        if value > 1 and info.data.get("repository_mode") not in ("none", None):
            raise ValueError("models that change while it runs, as by --repository-mode, need one process")
        if value > 1 and (info.data.get("gpu_budget_mib") or info.data.get("gpu_memory_mib")):
            raise ValueError("a limit on a GPU's memory needs one process: each worker would take that much")
        return value

    @field_validator("overload_status")
    @classmethod
    def _refuses_politely(cls, value: int) -> int:
        if value not in (429, 503):
            raise ValueError("503 or 429")
        return value

    @classmethod
    def load(cls, flags: Mapping[str, Any] | None = None) -> Self:
        """Settings of `flags` (wins), the environment, and the TOML file that `config` names.

        Raises:
            ValueError: A value is wrong or unknown; the message names it.
        """
        try:
            return cls(**{key: value for key, value in (flags or {}).items() if value is not None})
        except ValidationError as error:
            raise ValueError("; ".join(_what_is_wrong(item, flags or {}) for item in error.errors())) from error

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, TOML, the platform, in this order; no `.env`, no secrets folder."""
        sources = [init_settings, env_settings]
        path = init_settings().get("config") or env_settings().get("config")
        if path is not None:
            if not Path(path).is_file():
                raise ValueError(f"there is no configuration file {str(path)!r}")
            try:
                sources.append(TomlConfigSettingsSource(settings_cls, toml_file=path))
            except tomllib.TOMLDecodeError as error:
                raise ValueError(f"{path}: {error}") from error
        for variable, value in os.environ.items():
            if not value and variable.lower() in _NEVER_EMPTY:
                raise ValueError(
                    f"{variable} is set but empty, which would leave the server open: unset it, or fill it"
                )
        given: dict[str, Any] = {}
        for source in reversed(sources):
            given |= source()
        platform: Any = given.get("platform")
        if platform in get_args(Platform):
            sources.append(InitSettingsSource(settings_cls, defaults_of(platform, os.environ, given=given)))
        return tuple(sources)

    def model_file(self) -> Path | None:
        """The one to serve: named, or the one where the platform puts it; `None` is the embedded demo. Blocks.

        Raises:
            ValueError: The platform has put none there, or several.
        """
        if self.model is not None or self.platform is None:
            return self.model
        return find_model(self.platform, os.environ)

    def aliases(self) -> Aliases:
        """The part that names further paths."""
        return Aliases(predict=self.predict_route, ready=self.ready_route, live=self.live_route)

    def keyring(self) -> Keyring:
        """The API keys of the settings themselves and of the file that they name, which is read here.

        Raises:
            ValueError: A key, or the file, is wrong.
        """
        fixed = ApiKeys()
        for scope in SCOPES:
            secret: SecretStr | None = getattr(self, f"{scope}_keys")
            if secret is not None:
                keys = [key.strip() for key in secret.get_secret_value().split(",")]
                try:
                    fixed |= ApiKeys.parse({scope: keys})
                except ValueError as error:
                    raise ValueError(f"{scope}_keys: {error}") from error
        return Keyring(fixed, self.api_keys_file)

    def deadlines(self) -> Deadlines:
        """The part that says when answers are due; milliseconds become seconds."""
        default_ms = self.slo_ms or self.request_timeout_ms
        return Deadlines(default_s=default_ms / 1000, max_s=self.max_request_timeout_ms / 1000)


def _what_is_wrong(error: Mapping[str, Any], flags: Mapping[str, Any]) -> str:
    """One mistake, with the name that its author knows."""
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f"{name}: unknown; known are {', '.join(sorted(Settings.model_fields))}"
    variable = f"REDSERVE_{name.upper()}"
    where = variable if flags.get(name) is None and os.environ.get(variable) else name
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"
