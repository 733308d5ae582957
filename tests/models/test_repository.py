import asyncio

import numpy as np
import pytest

from puppet_engine import PuppetEngine
from redserve.engine.tensors import Array
from redserve.errors import ModelError, ModelLoadError, ModelNotReady, NotFound, UnknownModel
from redserve.models import ModelRepository, ModelState, ServedModel


def broken() -> PuppetEngine:
    raise ModelLoadError("the file is empty")


async def test_a_model_is_found_by_its_name():
    cat, dog = ServedModel("cat", PuppetEngine), ServedModel("dog", PuppetEngine)
    repository = ModelRepository([cat, dog])
    await repository.load()

    assert repository.get("dog") is dog
    with pytest.raises(UnknownModel, match="'cow'"):
        repository.get("cow")
    with pytest.raises(NotFound, match="cat, dog"):
        repository.get(None)
    await repository.drain()


async def test_the_only_model_needs_no_name():
    model = ServedModel("cat", PuppetEngine)
    repository = ModelRepository([model])
    await repository.load()

    assert repository.get(None) is model
    await repository.drain()


async def test_a_model_that_failed_does_not_keep_the_others_from_serving():
    repository = ModelRepository([ServedModel("bad", broken), ServedModel("good", PuppetEngine)])
    await repository.load()

    assert repository.get("good").state is ModelState.READY
    assert repository.not_ready() == {"bad": "the file is empty"}
    with pytest.raises(ModelNotReady, match="the file is empty"):
        repository.get("bad")
    await repository.drain()


async def test_a_model_that_is_unhealthy_is_not_ready_and_is_served_all_the_same():
    is_broken = False
    failed, changed = asyncio.Event(), asyncio.Event()

    def change(batch: Array) -> Array:
        if is_broken:
            raise ModelError("it broke")
        return 2 * batch

    repository = ModelRepository(
        [ServedModel("cat", lambda: PuppetEngine(change=change))], on_change=lambda model: changed.set()
    )
    await repository.load()
    model = repository.get("cat")
    changed.clear()
    is_broken = True
    for _ in range(3):
        failed.clear()
        model.infer({"x": np.zeros((1, 2), np.float32)}, lambda answer: failed.set())
        await failed.wait()
    async with asyncio.timeout(20):
        await changed.wait()

    assert repository.not_ready() == {"cat": "the last 4 runs failed, a probe among them: it broke"}
    assert repository.get("cat") is model
    await repository.drain()


async def test_each_change_of_state_is_told():
    told = []
    repository = ModelRepository(
        [ServedModel("cat", PuppetEngine)], on_change=lambda model: told.append((model.name, model.state))
    )
    await repository.load()
    await repository.drain()

    assert told == [("cat", ModelState.LOADING), ("cat", ModelState.READY), ("cat", ModelState.STOPPED)]


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match="two models are named 'cat'"):
        ModelRepository([ServedModel("cat", PuppetEngine), ServedModel("cat", PuppetEngine)])
    with pytest.raises(ValueError, match="needs a model"):
        ModelRepository([])
