"""Which models lie in a folder: `<name>/<version>/model.onnx`, or `<name>.onnx`, which is version 1 of it.

    folder ─ Listing: files and their fingerprints ─ settled: as at the last look ─ Plan: the configuration ─> Wanted

Looking blocks, so it is done in a thread. Beside its versions a model may have `config.toml` and what that names; a
change of any of them is a change of all versions. What begins with a dot or an underscore is passed over.

Source: the layout is that of Triton (`docs/user_guide/model_repository.md`).
"""

import re
import stat
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from redserve.batching import BatchObserver
from redserve.engine.base import Engine
from redserve.errors import BadRequest
from redserve.models.options import ModelOptions
from redserve.models.served_model import ServedModel
from redserve.models.version_policy import VersionPolicy

MODEL_FILE = "model.onnx"
CONFIG_FILE = "config.toml"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")

Fingerprint = tuple[tuple[str, int, int, int], ...]
"""Name, size, time of change and inode of each file: another writer of the same bytes makes another one."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a model's configuration says.

    Attributes:
        load_engine: Makes an engine of a file; blocks.
        options: How it is served.
        versions: Which versions are.
    """

    load_engine: Callable[[Path], Engine]
    options: ModelOptions = field(default_factory=ModelOptions)
    versions: VersionPolicy = field(default_factory=VersionPolicy)


Configure = Callable[[str, Path | None], Plan]
"""Reads the configuration of a model, by its name and the path of the file where it has one; `ValueError` says what is
wrong with it."""


@dataclass(frozen=True)
class Candidate:
    """A version that is to serve.

    Attributes:
        version: Its number, as text.
        fingerprint: Of its files and its configuration.
        make: Makes the model, not loaded yet.
    """

    version: str
    fingerprint: Hashable
    make: Callable[[], ServedModel] = field(compare=False)


@dataclass(frozen=True)
class Wanted:
    """What is to serve of one model.

    Attributes:
        versions: By their numbers.
        problem: What is wrong with the model as a whole. While its files or its configuration cannot be read, its
            versions are those from before.
    """

    versions: Mapping[str, Candidate] = field(default_factory=dict)
    problem: str = ""


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


class Folder:
    """A folder of models.

    Args:
        path: The folder.
        configure: Reads their configurations.
        observer: Of the batches of all models.
    """

    def __init__(self, path: Path, *, configure: Configure, observer: BatchObserver | None = None) -> None:
        self.path = path
        self._configure = configure
        self._observer = observer
        self._seen: Mapping[str, Listing] = {}
        self._settled: dict[str, Listing] = {}
        self._wanted: dict[str, tuple[Listing, Wanted]] = {}
        self._lock = threading.Lock()  # a request may look while somebody else does

    def look(self, *, only_settled: bool = False) -> Mapping[str, Wanted]:
        """What is to serve, by name.

        Args:
            only_settled: Take a change over only when it was the same at the look before, so that nothing is read
                while it is still being written.

        Raises:
            OSError: The folder cannot be read.
        """
        seen = list_models(self.path)
        with self._lock:
            self._settled = settle(self._settled, self._seen, seen) if only_settled else dict(seen)
            self._seen = seen
            for name in self._wanted.keys() - self._settled.keys():
                del self._wanted[name]
            return {name: self._want(name, listing) for name, listing in self._settled.items()}

    def look_at(self, name: str) -> Wanted | None:
        """What is to serve of one model, as its files are now; `None` where there is none of this name.

        Raises:
            OSError: The folder cannot be read.
        """
        listing = list_models(self.path).get(name)
        with self._lock:
            return None if listing is None else self._want(name, listing)

    def _want(self, name: str, listing: Listing) -> Wanted:
        known_listing, known = self._wanted.get(name, (None, Wanted()))
        if listing == known_listing:
            return known
        try:
            wanted = self._plan(name, listing)
        except ValueError as error:
            wanted = Wanted(known.versions, str(error))
        except OSError as error:
            wanted = Wanted(known.versions, f"{error.filename}: {error.strerror}")
        self._wanted[name] = listing, wanted
        return wanted

    def _plan(self, name: str, listing: Listing) -> Wanted:
        if listing.problem:
            raise ValueError(listing.problem)
        plan = self._configure(name, listing.config)
        if not listing.paths:
            path = self.path / name
            return Wanted(problem=f"{path} has no <version>/{MODEL_FILE}, where a version is a number from 1 on")
        chosen = plan.versions.choose(listing.paths)
        missing = sorted((plan.versions.only or frozenset()).difference(chosen))
        problem = f"{listing.config}: versions: there is no version {', '.join(missing)}" if missing else ""
        return Wanted({version: self._candidate(name, version, listing, plan) for version in chosen}, problem)

    def _candidate(self, name: str, version: str, listing: Listing, plan: Plan) -> Candidate:
        make = partial(
            ServedModel,
            name,
            partial(plan.load_engine, listing.paths[version]),
            version=version,
            options=plan.options,
            observer=self._observer,
        )
        return Candidate(version, (listing.fingerprints[version], listing.config_fingerprint), make)


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
