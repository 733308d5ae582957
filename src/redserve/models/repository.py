"""The repository: the models that run, and the folder that says which they are.

folder ── Wanted ──> RunningModels
  └─ when: none: at start · poll: every so often · explicit: by `load` and `unload`
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, final

from redserve.errors import ClientError, ModelLoadError, ShuttingDown, UnknownModel
from redserve.models.daemon import in_daemon_thread
from redserve.models.listing import checked_name
from redserve.models.running import RunningModels
from redserve.models.served_model import ModelState, ServedModel
from redserve.models.source import Candidate, Folder, Wanted
from redserve.models.transitions import number_of

logger = logging.getLogger("redserve.models")

Mode = Literal["none", "poll", "explicit"]
"""When the folder counts: at start, every so often, or when somebody says so."""


@final
@dataclass(frozen=True)
class Row:
    """One version of one model, as an index shows it.

    Attributes:
        name: The model's.
        version: Its number; empty where the model as a whole is meant.
        state: Where it stands; `STOPPED` is on its way out, `None` was never loaded.
        reason: Why it is not ready, or is unhealthy.
    """

    name: str
    version: str
    state: ModelState | None
    reason: str


@final
class ModelRepository(RunningModels):
    """Models by name, in one version or several.

    Args:
        models: What is served, whatever the folder has.
        folder: Where further models lie; read at once, so that it is known who is to come.
        mode: When the folder counts.
        at_start: In the mode `explicit`, the names of those that are loaded at start.
        on_change: Told of each model at once, and then whenever its state or its health has changed.
        on_unload: Told the name and version of what is not served any more while the rest is.

    Raises:
        ValueError: Two models share a name, there is none and no folder, or `at_start` names what is not there.
        OSError: The folder cannot be read.
    """

    def __init__(
        self,
        models: Iterable[ServedModel] = (),
        *,
        folder: Folder | None = None,
        mode: Mode = "none",
        at_start: Iterable[str] = (),
        on_change: Callable[[ServedModel], None] = lambda model: None,
        on_unload: Callable[[str, str], None] = lambda name, version: None,
    ) -> None:
        super().__init__(on_change=on_change, on_unload=on_unload)
        self.mode = mode
        self._folder = folder
        self._tasks: set[asyncio.Task[Any]] = set()
        self._complaint = ""
        for model in models:
            if model.name in self._versions:
                raise ValueError(f"two models are named {model.name!r}")
            self.want(model.name, Wanted({model.version: Candidate(model.version, None, partial(_same, model))}))
        if folder is None and not self._versions:
            raise ValueError("a repository needs a model")
        found = folder.look() if folder is not None else {}
        if mode == "explicit":
            unknown = sorted(set(at_start).difference(found))
            if unknown:
                raise ValueError(f"there is no model {', '.join(unknown)} to load at start")
            found = {name: found[name] for name in at_start}
        for name, wanted in found.items():
            self.want(name, wanted)

    async def index(self) -> list[Row]:
        """Every version that is known, and in the mode `explicit` every model that could be loaded, by name."""
        rows = []
        for name, versions in self._versions.items():
            rows += [Row(name, each.version, each.model.state, each.model.reason) for each in versions.held]
            if versions.problem:
                rows.append(Row(name, "", ModelState.FAILED, versions.problem))
        rows += [
            Row(model.name, model.version, ModelState.STOPPED, "its last requests are answered")
            for model in self._retiring
        ]
        if self._folder is not None and self.mode == "explicit":
            known = {row.name for row in rows}
            found = await in_daemon_thread(self._folder.look, name="redserve-index")
            rows += [Row(name, "", None, wanted.problem) for name, wanted in found.items() if name not in known]
        return sorted(rows, key=lambda row: (row.name, number_of(row.version)))

    async def load(self, name: str | None = None) -> None:
        """Load everything that is wanted at start, each served as soon as it is ready; or, by name, one model anew.

        Only in the mode `explicit` can a name be given. A version that is served already, from the same files, stays as
        it is; one that failed is tried again. When this returns, the model is served as its files are now.

        Raises:
            BadRequest: That is no name.
            UnknownModel: The folder has no such model.
            ClientError: Models are not loaded by request here.
            ModelLoadError: It cannot be loaded; whatever has served before goes on serving.
            ShuttingDown: It is draining.
        """
        if name is None:
            await self.settle(list(self._versions))
            self.has_started = True
            return
        wanted = await self._look_at(checked_name(name))
        versions = self.want(name, wanted, again=True)
        await self._owned(self.settle([name]))
        failures = [f"version {version}: {reason}" for version, reason in versions.failures().items()]
        if wanted.problem or failures:
            raise ModelLoadError(f"failed to load {name!r}: {'; '.join(filter(None, [wanted.problem, *failures]))}")

    async def unload(self, name: str) -> None:
        """Serve this model no longer; what it has taken is answered, and then it is freed.

        Raises:
            BadRequest: That is no name.
            UnknownModel: It is not loaded.
            ClientError: Models are not unloaded by request here.
        """
        self._check_explicit()
        if checked_name(name) not in self._versions:
            raise UnknownModel(name)
        self.want(name, Wanted())

    async def follow(self, every_s: float) -> None:
        """Look at the folder every so often, in a thread, until cancelled; does nothing but in the mode `poll`."""
        while self._folder is not None and self.mode == "poll":
            await asyncio.sleep(every_s)
            try:
                found = await in_daemon_thread(partial(self._folder.look, only_settled=True), name="redserve-poll")
            except (OSError, RuntimeError) as error:  # unreadable for now, or no thread is to be had: all stays
                if self._complaint != str(error):
                    self._complaint = str(error)
                    logger.error("the folder of models cannot be read, all stays", extra={"why": self._complaint})
                continue
            self._complaint = ""
            await self.take_over(found)

    async def take_over(self, found: Mapping[str, Wanted]) -> None:
        """Serve what was found, and nothing else."""
        for name in [*found, *self._versions.keys() - found.keys()]:
            self.want(name, found.get(name, Wanted()))
        await self._owned(self.settle(list(self._versions)))

    async def _look_at(self, name: str) -> Wanted:
        folder = self._check_explicit()
        try:
            wanted = await in_daemon_thread(partial(folder.look_at, name), name="redserve-look")
        except OSError as error:
            raise ModelLoadError(f"failed to load {name!r}: {error}") from error
        if wanted is None:
            raise UnknownModel(name)
        return wanted

    def _check_explicit(self) -> Folder:
        if self._folder is None or self.mode != "explicit":
            raise ClientError(
                "models cannot be loaded or unloaded by a request here: --repository-mode explicit allows it"
            )
        if self.is_draining:
            raise ShuttingDown
        return self._folder

    async def _owned(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for `work`, which goes on when its caller is gone: what half-loads would be nobody's."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)


def _same(model: ServedModel) -> ServedModel:
    return model
