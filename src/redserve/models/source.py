"""A folder of models: which versions are to serve, by its files and their configurations.

    folder ─ Listing: files and fingerprints ─ settled: as at the last look ─ Plan: the configuration ─> Wanted

Looking blocks, so it is done in a thread. Beside its versions a model may have `config.toml` and what that names; a
change of any of them is a change of all versions.
"""

import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from redserve.batching import BatchObserver
from redserve.engine.base import Engine
from redserve.models.listing import MODEL_FILE, Listing, list_models, settle
from redserve.models.options import ModelOptions
from redserve.models.served_model import ServedModel
from redserve.models.version_policy import VersionPolicy


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
