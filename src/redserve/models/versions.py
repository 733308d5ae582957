"""The versions of one model: those that are to serve, those that are held, and the one that answers by default."""

from collections.abc import Mapping
from dataclasses import dataclass

from redserve.models.served_model import ModelState, ServedModel
from redserve.models.source import Candidate, Wanted
from redserve.models.transitions import Add, Load, Stage, Unload, next_action, number_of


@dataclass(frozen=True, eq=False)
class Held:
    """A version that is there, or on its way."""

    candidate: Candidate
    model: ServedModel

    @property
    def version(self) -> str:
        """See `Standing`."""
        return self.candidate.version

    @property
    def fingerprint(self) -> object:
        """See `Standing`."""
        return self.candidate.fingerprint

    @property
    def stage(self) -> Stage:
        """See `Standing`."""
        if self.model.state is ModelState.LOADING:
            return Stage.LOADING if self.model.has_begun else Stage.WAITING
        return Stage.READY if self.model.state is ModelState.READY else Stage.FAILED


class Versions:
    """What a repository knows of one model.

    Args:
        name: The model's.
        matters: Whether the server is not ready before this model is; from its first readiness on it does.

    Attributes:
        problem: What is wrong with it as a whole.
        held: Oldest first.
        default: The version that serves whoever names none: the newest that is ready, else the newest; `None`: none.
        by_number: What serves, or stands for, each version.
    """

    def __init__(self, name: str, *, matters: bool) -> None:
        self.name = name
        self.problem = ""
        self.held: list[Held] = []
        self.default: ServedModel | None = None
        self.by_number: dict[str, ServedModel] = {}
        self._matters = matters
        self._wanted: Mapping[str, Candidate] = {}

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to know any more."""
        return not (self.held or self._wanted or self.problem)

    @property
    def not_ready(self) -> str:
        """Why it is not ready, or is unhealthy; empty when it is ready, or does not matter yet."""
        if self.default is not None:
            return self.default.reason if self._matters else ""
        return self.problem if self._matters else ""

    def want(self, wanted: Wanted) -> None:
        """From now on these are to serve."""
        self._wanted, self.problem = wanted.versions, wanted.problem

    def next_action(self) -> Add | Load[Held] | Unload[Held] | None:
        """See `transitions.py`."""
        return next_action({number: each.fingerprint for number, each in self._wanted.items()}, self.held)

    def add(self, version: str) -> ServedModel:
        """Hold a version that is wanted."""
        candidate = self._wanted[version]
        model = candidate.make()
        self.held.append(Held(candidate, model))
        self.refresh()
        return model

    def remove(self, held: Held) -> None:
        """Hold it no longer."""
        self.held.remove(held)
        self.refresh()

    def forget_failures(self) -> list[Held]:
        """Let go of what has failed, so that it is tried again."""
        failed = [each for each in self.held if each.stage is Stage.FAILED]
        for each in failed:
            self.remove(each)
        return failed

    def failures(self) -> dict[str, str]:
        """Why those that failed did, by version."""
        return {each.version: each.model.reason for each in self.held if each.stage is Stage.FAILED}

    def refresh(self) -> None:
        """A state has changed: find out who serves."""
        ranked = sorted(
            enumerate(self.held), key=lambda item: (item[1].stage is Stage.READY, number_of(item[1].version), item[0])
        )
        self.by_number = {each.version: each.model for _, each in ranked}
        self.default = ranked[-1][1].model if ranked else None
        if self.default is not None and self.default.is_ready:
            self._matters = True
