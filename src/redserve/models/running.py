"""The models that run: who is served under which name, in which versions.

    Wanted ──> Versions (one a model) ── next_action ──> add, load, unload

One version loads at a time, whichever model it is of. It takes over in the turn of the loop in which it is ready; what
it replaces finishes what it has taken, and is freed.

Source: sessions that are created from several threads at once have crashed (onnxruntime issue 26610).
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator

from redserve.errors import ModelNotReady, NotFound, UnknownModel
from redserve.models.served_model import ModelState, ServedModel
from redserve.models.source import Wanted
from redserve.models.transitions import Add, Load, Unload, number_of
from redserve.models.versions import Held, Versions

logger = logging.getLogger("redserve.models")


class RunningModels:
    """Models by name, in one version or several; `want` and `settle` change which.

    Args:
        on_change: Told of each model at once, and then whenever its state or its health has changed.
        on_unload: Told the name and version of what is not served any more while the rest is.

    Attributes:
        has_started: Everything that was wanted at first is ready or has failed.
        is_draining: Everything ends.
    """

    def __init__(self, *, on_change: Callable[[ServedModel], None], on_unload: Callable[[str, str], None]) -> None:
        self.has_started = False
        self.is_draining = False
        self._on_change = on_change
        self._on_unload = on_unload
        self._versions: dict[str, Versions] = {}
        self._loading = asyncio.Lock()
        self._retiring: dict[ServedModel, asyncio.Task[None]] = {}

    def __iter__(self) -> Iterator[ServedModel]:
        """Each model, in the version that answers by default."""
        return iter([versions.default for versions in self._versions.values() if versions.default is not None])

    def __len__(self) -> int:
        return len(self._versions)

    def __contains__(self, name: object) -> bool:
        return name in self._versions

    def get(self, name: str | None, version: str | None = None) -> ServedModel:
        """The model of this name; `None` is the only one.

        Args:
            name: The model's.
            version: The one that it has to be; `None` is the newest that is ready.

        Raises:
            UnknownModel: There is none of this name, or not in this version.
            NotFound: No name was given, and several are served, or none.
            ModelNotReady: It is not ready. One that is unhealthy is served all the same: what runs well is its cure.
        """
        if name is None:
            if len(self._versions) != 1:
                names = ", ".join(sorted(self._versions))
                raise NotFound(f"several models are served, name one: {names}" if names else "no model is served")
            (name,) = self._versions
        versions = self._versions.get(name)
        if versions is None:
            raise UnknownModel(name)
        if version is None:
            model = versions.default
            if model is None:
                raise ModelNotReady(f"model {name!r} is not ready: {versions.problem}")
        else:
            found = versions.by_number.get(version)
            if found is None:
                raise UnknownModel(name, version=version)
            model = found
        if model.state is not ModelState.READY:
            raise ModelNotReady(f"model {name!r} is not ready: {model.reason}")
        return model

    def versions_of(self, name: str) -> list[str]:
        """The versions of this model that take requests, oldest first; none where there is no such model."""
        versions = self._versions.get(name)
        held = versions.by_number.values() if versions is not None else ()
        return sorted((model.version for model in held if model.state is ModelState.READY), key=number_of)

    def not_ready(self) -> dict[str, str]:
        """Why each model that is not ready is not, or is unhealthy, by name.

        A model that came later than the start counts once it has been ready: adding one takes no server out of its load
        balancer. While one of its versions serves, it is ready, whatever has become of others.
        """
        return {name: reason for name, versions in self._versions.items() if (reason := versions.not_ready)}

    def want(self, name: str, wanted: Wanted, *, again: bool = False) -> Versions:
        """Have these versions serve, as far as no loading is needed.

        Args:
            name: The model's.
            wanted: Its versions.
            again: Try what has failed once more.
        """
        versions = self._versions.get(name)
        if versions is None:
            versions = self._versions[name] = Versions(name, matters=not self.has_started)
        if wanted.problem and wanted.problem != versions.problem:
            logger.error("model has a problem", extra={"model": name, "reason": wanted.problem})
        versions.want(wanted)
        if again:
            for held in versions.forget_failures():
                self._retire(held)
        self._step(versions)
        return versions

    async def settle(self, names: Iterable[str]) -> None:
        """Load what is to be loaded, and take over as it becomes ready."""
        for name in names:
            while not self.is_draining and await self._load_next(name):
                pass

    async def _load_next(self, name: str) -> bool:
        """Load what is next to be loaded of this model; returns whether there was anything."""
        async with self._loading:
            versions = self._versions.get(name)
            held = self._step(versions) if versions is not None else None
            if versions is None or held is None:
                return False
            await held.model.load()
            self._step(versions)  # in the turn of the loop in which it became ready
            return True

    async def drain(self, *, grace_s: float | None = None) -> None:
        """Drain all, side by side."""
        self.is_draining = True
        held = [each.model for versions in self._versions.values() for each in versions.held]
        await asyncio.gather(*(model.drain(grace_s=grace_s) for model in (*held, *self._retiring)))

    def _step(self, versions: Versions) -> Held | None:
        """Do what needs no waiting; returns what is to be loaded next."""
        while True:
            match versions.next_action():
                case Add(version):
                    model = versions.add(version)
                    model.on_change = self._changed
                    self._changed(model)
                case Unload(held):
                    versions.remove(held)
                    self._retire(held)
                case Load(held):
                    return held
                case None:
                    if versions.is_empty:
                        self._versions.pop(versions.name, None)
                    return None

    def _retire(self, held: Held) -> None:
        """Let a version go that is not held any more: it finishes what it has taken."""
        model = held.model
        if model.state is ModelState.READY:
            self._retiring[model] = asyncio.get_running_loop().create_task(self._finish(model))
        versions = self._versions.get(model.name)
        heir = versions.by_number.get(model.version) if versions is not None else None
        if heir is not None:
            self._on_change(heir)
        else:
            self._on_unload(model.name, model.version)

    async def _finish(self, model: ServedModel) -> None:
        try:
            await model.drain()
            logger.info("model is unloaded", extra={"model": model.name, "version": model.version})
        except Exception:
            logger.exception("model could not be unloaded", extra={"model": model.name, "version": model.version})
        finally:
            del self._retiring[model]

    def _changed(self, model: ServedModel) -> None:
        versions = self._versions.get(model.name)
        if versions is None or all(each.model is not model for each in versions.held):
            return  # it is on its way out
        versions.refresh()
        self._on_change(versions.by_number[model.version])
