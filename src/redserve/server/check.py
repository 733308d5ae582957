"""`redserve check`: whether a folder of models can be served, without serving it.

folder ─ configurations ─ each version that is to serve: loaded once ─> Finding, one a model
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from redserve.engine.onnx_session import Device
from redserve.errors import RedserveError
from redserve.models import Folder, ServedModel
from redserve.server.model_config import plan
from redserve.server.model_settings import ModelSettings


@dataclass(frozen=True)
class Finding:
    """What was found about one model.

    Attributes:
        name: The model's.
        versions: Those that are to serve, newest first.
        problems: Why it cannot be served as it is; none is good.
    """

    name: str
    versions: tuple[str, ...]
    problems: tuple[str, ...]


def check(folder: Path, defaults: ModelSettings, *, device: Device | None = None) -> Iterator[Finding]:
    """Look at each model in turn, by name; blocks.

    Args:
        folder: The repository.
        defaults: What holds where a configuration says nothing.
        device: In place of what the configurations say.

    Raises:
        OSError: The folder cannot be read.
    """
    for name, wanted in sorted(
        Folder(folder, configure=partial(plan, defaults=defaults, device=device)).look().items()
    ):
        problems = [wanted.problem] if wanted.problem else []
        for version, candidate in wanted.versions.items():
            reason = _reason(candidate.make())
            if reason:
                problems.append(f"version {version}: {reason}")
        yield Finding(name, tuple(wanted.versions), tuple(problems))


def _reason(model: ServedModel) -> str:
    """Why it cannot be loaded; empty when it can."""
    try:
        model.try_out()
    except RedserveError as error:
        return str(error)
    return ""
