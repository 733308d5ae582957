"""The running set of models: who is served under which name."""

import asyncio
from collections.abc import Callable, Iterable, Iterator

from redserve.errors import ModelNotReady, NotFound, UnknownModel
from redserve.models.served_model import ModelState, ServedModel


class ModelRepository:
    """Models by name; loaded and drained together.

    Args:
        models: What is served.
        on_change: Told of each model at once, and then whenever its state or its health has changed.

    Raises:
        ValueError: Two models share a name, or there is none.
    """

    def __init__(
        self, models: Iterable[ServedModel], *, on_change: Callable[[ServedModel], None] = lambda model: None
    ) -> None:
        self._models: dict[str, ServedModel] = {}
        for model in models:
            if model.name in self._models:
                raise ValueError(f"two models are named {model.name!r}")
            self._models[model.name] = model
            model.on_change = on_change
        if not self._models:
            raise ValueError("a repository needs a model")
        for model in self:
            on_change(model)

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def __len__(self) -> int:
        return len(self._models)

    def get(self, name: str | None, version: str | None = None) -> ServedModel:
        """The model of this name; `None` is the only one.

        Args:
            name: The model's.
            version: The one that it has to be; `None` is any.

        Raises:
            UnknownModel: There is none of this name, or not in this version.
            NotFound: No name was given, and several are served.
            ModelNotReady: It is not ready. One that is unhealthy is served all the same: what runs well is its cure.
        """
        if name is None:
            if len(self._models) > 1:
                raise NotFound(f"several models are served, name one: {', '.join(sorted(self._models))}")
            (model,) = self._models.values()
        else:
            found = self._models.get(name)
            if found is None:
                raise UnknownModel(name)
            model = found
        if version is not None and version != model.version:
            raise UnknownModel(model.name, version=version)
        if model.state is not ModelState.READY:
            raise ModelNotReady(f"model {model.name!r} is not ready: {model.reason}")
        return model

    def not_ready(self) -> dict[str, str]:
        """Why each model that is not ready is not, or is unhealthy, by name."""
        return {model.name: model.reason for model in self if not model.is_ready}

    async def load(self) -> None:
        """Load all, one after the other; each is served as soon as it is ready.

        Source: sessions that are created from several threads at once have crashed (onnxruntime issue 26610).
        """
        for model in self:
            await model.load()

    async def drain(self, *, grace_s: float | None = None) -> None:
        """Drain all, side by side."""
        await asyncio.gather(*(model.drain(grace_s=grace_s) for model in self))
