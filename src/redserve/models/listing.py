"""The files of models in a folder: `<name>/<version>/model.onnx`, or `<name>.onnx`, which is version 1 of it.

    folder ─ list_models ─> Listing: files and their fingerprints ─ settle ─> those of which two looks agree

Listing blocks. What begins with a dot or an underscore is passed over.

Source: the layout is that of Triton (`docs/user_guide/model_repository.md`).
"""

import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from redserve.errors import BadRequest

MODEL_FILE = "model.onnx"
CONFIG_FILE = "config.toml"

NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,254}"
"""What a model's name is made of."""

_NAME = re.compile(NAME)
_VERSION = re.compile(r"[1-9][0-9]{0,17}")

Fingerprint = tuple[tuple[str, int, int, int], ...]
"""Name, size, time of change and inode of each file: another writer of the same bytes makes another one."""


@dataclass(frozen=True)
class Listing:
    """The files of one model, as they lie there.

    Attributes:
        paths: The model file of each version.
        fingerprints: Of each version.
        config: Its configuration, where it has one.
        config_fingerprint: Of that and of what may lie beside it.
        problem: Why it cannot be told what lies there.
    """

    paths: Mapping[str, Path]
    fingerprints: Mapping[str, Fingerprint]
    config: Path | None = None
    config_fingerprint: Fingerprint = ()
    problem: str = ""


def checked_name(name: str) -> str:
    """A model's name that came from a client, safe as a part of a path.

    Raises:
        BadRequest: It is none: it may not be empty, longer than 255 characters, or hold anything but letters, digits,
            `.`, `_` and `-`, nor begin with one of these.
    """
    if not _NAME.fullmatch(name):
        raise BadRequest(_not_a_name(name))
    return name


def settle(
    settled: Mapping[str, Listing], before: Mapping[str, Listing], now: Mapping[str, Listing]
) -> dict[str, Listing]:
    """What to go by: of each model what two looks in a row agree on, else what was gone by so far."""
    result: dict[str, Listing] = {}
    for name in settled.keys() | now.keys():
        listing = now.get(name) if now.get(name) == before.get(name) else settled.get(name)
        if listing is not None:
            result[name] = listing
    return result


def list_models(folder: Path) -> dict[str, Listing]:
    """The models in `folder`, by name; blocks.

    Raises:
        OSError: The folder itself cannot be read.
    """
    listings: dict[str, Listing] = {}
    for entry in sorted(folder.iterdir()):
        is_folder = entry.is_dir()
        if entry.name[0] in "._" or not (is_folder or entry.suffix == ".onnx"):
            continue
        name = entry.name if is_folder else entry.stem
        if not _NAME.fullmatch(name):
            listings[name] = Listing({}, {}, problem=f"{entry}: {_not_a_name(name)}")
        elif name in listings:
            listings[name] = Listing({}, {}, problem=f"{folder}: both a folder and a file are named {name!r}")
        else:
            try:
                listings[name] = _list_folder(entry) if is_folder else _list_file(entry)
            except OSError as error:  # it has just gone, or is not for us
                listings[name] = Listing({}, {}, problem=f"{error.filename}: {error.strerror}")
    return listings


def _list_folder(folder: Path) -> Listing:
    paths, fingerprints = {}, {}
    for entry in folder.iterdir():
        model = entry / MODEL_FILE
        if _VERSION.fullmatch(entry.name) and model.exists():
            paths[entry.name] = model
            fingerprints[entry.name] = _fingerprint(entry.rglob("*"), entry)
    config = folder / CONFIG_FILE
    return Listing(paths, fingerprints, config if config.exists() else None, _fingerprint(folder.iterdir(), folder))


def _list_file(path: Path) -> Listing:
    """External data lie beside it, in files whose names begin with its own, as exporters name them."""
    files = (entry for entry in path.parent.iterdir() if entry.name.startswith(path.name))
    return Listing({"1": path}, {"1": _fingerprint(files, path.parent)})


def _fingerprint(files: Iterable[Path], folder: Path) -> Fingerprint:
    found = []
    for path in files:
        try:
            facts = path.stat()
        except FileNotFoundError:  # it has just gone
            continue
        if not stat.S_ISDIR(facts.st_mode):
            found.append((str(path.relative_to(folder)), facts.st_size, facts.st_mtime_ns, facts.st_ino))
    return tuple(sorted(found))


def _not_a_name(name: str) -> str:
    return f"a model's name is made of letters, digits, '.', '_' and '-', begins with one of the first two: {name!r}"
