"""A folder of models that tests write by hand: a model file is a text, and its engine answers what the text says."""

from pathlib import Path

from puppet_engine import PuppetEngine
from redserve.errors import ModelLoadError
from redserve.models import Folder, ModelOptions, Plan, VersionPolicy


def put(folder: Path, name: str, version: str, text: str) -> Path:
    """Write a version of a model: `broken` cannot be loaded, a number is what the rows are multiplied with."""
    path = folder / name / version / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def load(path: Path) -> PuppetEngine:
    text = path.read_text()
    if text == "broken":
        raise ModelLoadError("the file is broken")
    return PuppetEngine(change=lambda rows: float(text) * rows)


def configure(name: str, config: Path | None) -> Plan:
    """The configuration is the version policy: a number is how many of the newest, `all`, or `only 1 3`."""
    words = (config.read_text() if config is not None else "1").split()
    match words:
        case ["all"]:
            versions = VersionPolicy(latest=None)
        case ["only", *numbers]:
            versions = VersionPolicy(latest=None, only=frozenset(numbers))
        case [number] if number.isdecimal():
            versions = VersionPolicy(latest=int(number))
        case _:
            raise ValueError(f"{config}: what is {' '.join(words)}?")
    return Plan(load_engine=load, versions=versions, options=ModelOptions(max_batch_size=4))


def open_folder(path: Path) -> Folder:
    return Folder(path, configure=configure)
