import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.model_folder import load, open_folder, put
from puppet_engine import PuppetEngine
from redserve.batching import Answer
from redserve.engine.tensors import Array
from redserve.errors import BadRequest, ClientError, ModelLoadError, ModelNotReady, ShuttingDown, UnknownModel
from redserve.models import Folder, ModelOptions, ModelRepository, ModelState, Plan, Row, ServedModel
from redserve.models.daemon import in_daemon_thread
from redserve.models.repository import Mode


class Followed:
    """A repository of a folder, looked at when the test says so.

    Attributes:
        told: Each state that was told of a version.
        unloaded: Each version that was said to be unloaded.
    """

    def __init__(self, path: Path, *, mode: Mode = "poll", at_start: tuple[str, ...] = ()) -> None:
        self.folder = open_folder(path)
        self.told: list[tuple[str, str, bool]] = []
        self.unloaded: list[tuple[str, str]] = []
        self.repository = ModelRepository(
            folder=self.folder,
            mode=mode,
            at_start=at_start,
            on_change=lambda model: self.told.append((model.name, model.version, model.is_ready)),
            on_unload=lambda name, version: self.unloaded.append((name, version)),
        )

    async def look(self) -> None:
        await self.repository.take_over(await asyncio.to_thread(self.folder.look))

    async def rows(self) -> list[tuple[str, str, ModelState | None]]:
        return [(row.name, row.version, row.state) for row in await self.repository.index()]


async def follow(path: Path, **how: object) -> Followed:
    followed = await asyncio.to_thread(Followed, path, **how)  # type: ignore[arg-type]
    await followed.repository.load()
    return followed


async def ask(model: ServedModel) -> float:
    """What the model makes of 1."""
    answered: asyncio.Future[Answer[list[Array]]] = asyncio.get_running_loop().create_future()
    model.infer({"x": np.ones((1, 2), np.float32)}, answered.set_result)
    answer = await answered
    if answer.error is not None:
        raise answer.error
    assert answer.result is not None
    return float(answer.result[0][0, 0])


async def drained(repository: ModelRepository) -> None:
    """Once nothing is on its way out any more."""
    async with asyncio.timeout(20):
        while True:
            if all(row.state is not ModelState.STOPPED for row in await repository.index()):
                return
            await asyncio.sleep(0.001)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)


async def test_the_newest_version_is_served_and_others_are_unknown(tmp_path):
    put(tmp_path, "cat", "1", "1")
    put(tmp_path, "cat", "2", "2")
    followed = await follow(tmp_path, mode="none")
    repository = followed.repository

    assert await ask(repository.get("cat")) == 2
    assert repository.get("cat", "2") is repository.get("cat")
    with pytest.raises(UnknownModel, match="no version '1' of model 'cat'"):
        repository.get("cat", "1")
    assert repository.versions_of("cat") == ["2"]
    assert repository.versions_of("dog") == []
    assert repository.not_ready() == {}
    await repository.drain()


async def test_a_policy_may_serve_several_versions_each_by_its_number(tmp_path):
    for version in ("9", "10", "11"):
        put(tmp_path, "cat", version, version)
    (tmp_path / "cat" / "config.toml").write_text("only 9 10")
    followed = await follow(tmp_path, mode="none")
    repository = followed.repository

    assert repository.versions_of("cat") == ["9", "10"]
    assert [await ask(repository.get("cat", version)) for version in (None, "9", "10")] == [10, 9, 10]
    assert len(list(repository)) == 1
    await repository.drain()


async def test_a_new_version_takes_over_and_the_old_one_is_freed(tmp_path):
    put(tmp_path, "cat", "1", "1")
    followed = await follow(tmp_path)
    repository = followed.repository
    old = repository.get("cat")
    engine = old.engine
    put(tmp_path, "cat", "2", "2")

    await followed.look()

    assert await ask(repository.get("cat")) == 2
    await drained(repository)
    assert isinstance(engine, PuppetEngine)
    assert engine.is_closed
    assert old.state is ModelState.STOPPED
    assert followed.unloaded == [("cat", "1")]
    await repository.drain()


async def test_while_the_new_version_loads_the_old_one_serves(tmp_path, monkeypatch):
    put(tmp_path, "cat", "1", "1")
    followed = await follow(tmp_path)
    repository = followed.repository
    gate, began = asyncio.Event(), asyncio.Event()

    async def in_thread_at_the_gate(function: Callable[[], Any], *, name: str) -> Any:
        began.set()
        await gate.wait()
        return await in_daemon_thread(function, name=name)

    monkeypatch.setattr("redserve.models.served_model.in_daemon_thread", in_thread_at_the_gate)
    put(tmp_path, "cat", "2", "2")
    looking = asyncio.create_task(followed.look())
    await began.wait()

    assert await ask(repository.get("cat")) == 1
    assert repository.not_ready() == {}
    assert await followed.rows() == [("cat", "1", ModelState.READY), ("cat", "2", ModelState.LOADING)]
    with pytest.raises(ModelNotReady, match="loading"):
        repository.get("cat", "2")
    gate.set()
    await looking
    assert await ask(repository.get("cat")) == 2
    await repository.drain()


async def test_what_the_old_version_has_taken_it_answers(tmp_path):
    put(tmp_path, "cat", "1", "1")
    followed = await follow(tmp_path)
    repository = followed.repository
    old = repository.get("cat")
    engine = old.engine
    assert isinstance(engine, PuppetEngine)
    engine.shut()
    asked = asyncio.create_task(ask(old))
    await asyncio.to_thread(engine.began.wait)
    put(tmp_path, "cat", "2", "2")

    await followed.look()
    assert await ask(repository.get("cat")) == 2
    assert ("cat", "1", ModelState.STOPPED) in await followed.rows()
    assert not engine.is_closed
    engine.open()

    assert await asked == 1
    await drained(repository)
    assert engine.is_closed
    await repository.drain()


async def test_who_has_found_the_old_version_and_holds_it_is_still_answered(tmp_path):
    put(tmp_path, "cat", "1", "1")
    followed = await follow(tmp_path)
    repository = followed.repository
    found = repository.get("cat")
    found.hold()
    found.hold()
    put(tmp_path, "cat", "2", "2")
    await followed.look()
    found.let_go()

    for _ in range(10):  # turns of the loop in which it could close
        await asyncio.sleep(0)
    assert await ask(found) == 1
    found.let_go()
    await drained(repository)
    with pytest.raises(ShuttingDown):
        await ask(found)
    await repository.drain()


async def test_a_version_that_cannot_be_loaded_leaves_the_old_one_serving_and_says_why(tmp_path):
    put(tmp_path, "cat", "1", "1")
    followed = await follow(tmp_path)
    repository = followed.repository
    put(tmp_path, "cat", "2", "broken")
    await followed.look()
    await followed.look()

    assert await ask(repository.get("cat")) == 1
    assert repository.not_ready() == {}
    assert Row("cat", "2", ModelState.FAILED, "the file is broken") in await repository.index()
    assert followed.told.count(("cat", "2", False)) == 2, "it was tried once: loading, failed"

    put(tmp_path, "cat", "2", "2.5")
    await followed.look()
    assert await ask(repository.get("cat")) == 2.5
    await repository.drain()


async def test_a_version_whose_file_changes_is_loaded_anew_and_stays_ready_all_along(tmp_path):
    put(tmp_path, "cat", "1", "1")
    followed = await follow(tmp_path)
    repository = followed.repository
    followed.told.clear()
    put(tmp_path, "cat", "1", "3.5")

    await followed.look()

    assert await ask(repository.get("cat")) == 3.5
    assert set(followed.told) == {("cat", "1", True)}
    assert followed.unloaded == []
    followed.told.clear()
    await drained(repository)
    assert followed.told == [], "the end of the old one is no news of the new one"
    await repository.drain()


async def test_a_changed_file_that_cannot_be_loaded_leaves_what_is_loaded(tmp_path):
    put(tmp_path, "cat", "1", "1")
    followed = await follow(tmp_path)
    put(tmp_path, "cat", "1", "broken")

    await followed.look()

    assert await ask(followed.repository.get("cat")) == 1
    assert await followed.rows() == [("cat", "1", ModelState.READY), ("cat", "1", ModelState.FAILED)]
    await followed.repository.drain()


async def test_models_come_and_go(tmp_path):
    put(tmp_path, "cat", "1", "1")
    followed = await follow(tmp_path)
    repository = followed.repository
    put(tmp_path, "dog", "1", "4")
    await followed.look()
    assert await ask(repository.get("dog")) == 4

    shutil.rmtree(tmp_path / "cat")
    await followed.look()

    assert "cat" not in repository
    with pytest.raises(UnknownModel):
        repository.get("cat")
    assert repository.get(None).name == "dog"
    assert followed.unloaded == [("cat", "1")]
    await repository.drain()


async def test_going_back_to_an_older_version_is_a_change_like_any_other(tmp_path):
    put(tmp_path, "cat", "1", "1")
    put(tmp_path, "cat", "2", "2")
    followed = await follow(tmp_path)
    shutil.rmtree(tmp_path / "cat" / "2")

    await followed.look()

    assert await ask(followed.repository.get("cat")) == 1
    assert followed.repository.versions_of("cat") == ["1"]
    await followed.repository.drain()


async def test_a_repository_is_ready_once_those_are_that_were_there_at_start(tmp_path):
    put(tmp_path, "cat", "1", "1")
    put(tmp_path, "bad", "1", "broken")
    (tmp_path / "empty").mkdir()
    followed = await asyncio.to_thread(Followed, tmp_path)
    assert set(followed.repository.not_ready()) == {"cat", "bad", "empty"}
    await followed.repository.load()

    reasons = followed.repository.not_ready()

    assert reasons["bad"] == "the file is broken"
    assert "has no <version>/model.onnx" in reasons["empty"]
    assert "cat" not in reasons
    with pytest.raises(ModelNotReady, match="has no <version>"):
        followed.repository.get("empty")
    await followed.repository.drain()


async def test_a_model_that_comes_later_and_cannot_be_loaded_leaves_the_server_ready(tmp_path):
    put(tmp_path, "cat", "1", "1")
    followed = await follow(tmp_path)
    put(tmp_path, "bad", "1", "broken")
    await followed.look()

    assert followed.repository.not_ready() == {}
    with pytest.raises(ModelNotReady, match="the file is broken"):
        followed.repository.get("bad")
    await followed.repository.drain()


async def test_a_broken_configuration_leaves_all_as_it_was_and_is_shown(tmp_path):
    put(tmp_path, "cat", "1", "1")
    followed = await follow(tmp_path)
    config = tmp_path / "cat" / "config.toml"
    config.write_text("nonsense")
    await followed.look()

    assert await ask(followed.repository.get("cat")) == 1
    assert Row("cat", "", ModelState.FAILED, f"{config}: what is nonsense?") in await followed.repository.index()
    assert followed.repository.not_ready() == {}
    await followed.repository.drain()


async def test_one_version_loads_at_a_time_whichever_model_it_is_of(tmp_path):
    loading = 0

    def load_alone(path: Path) -> PuppetEngine:
        nonlocal loading
        loading += 1
        assert loading == 1
        engine = load(path)
        loading -= 1
        return engine

    for name in ("cat", "dog", "cow"):
        put(tmp_path, name, "1", "1")
    plan = Plan(load_engine=load_alone, options=ModelOptions(instances=2, max_batch_size=2))
    folder = Folder(tmp_path, configure=lambda name, config: plan)
    repository = await asyncio.to_thread(lambda: ModelRepository(folder=folder, mode="explicit"))
    await repository.load()

    await asyncio.gather(*(repository.load(name) for name in ("cat", "dog", "cow", "cat")))

    assert [model.state for model in repository] == [ModelState.READY] * 3
    await repository.drain()


async def test_polling_goes_on_when_the_folder_is_away_for_a_while(tmp_path, caplog):
    here, away = tmp_path / "here", tmp_path / "away"
    put(here, "cat", "1", "1")
    followed = await follow(here)
    here.rename(away)
    following = asyncio.create_task(followed.repository.follow(0.001))
    await until(lambda: caplog.records)
    assert await ask(followed.repository.get("cat")) == 1
    put(away, "cat", "2", "2")
    away.rename(here)
    await until(lambda: followed.repository.versions_of("cat") == ["2"])
    following.cancel()

    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "the folder of models cannot be read, all stays"
    ]
    await followed.repository.drain()


async def test_polling_is_only_done_where_it_is_asked_for(tmp_path):
    put(tmp_path, "cat", "1", "1")
    followed = await follow(tmp_path, mode="none")

    await followed.repository.follow(0.0)  # returns

    await followed.repository.drain()


async def test_in_the_mode_explicit_models_are_loaded_and_unloaded_by_name(tmp_path):
    put(tmp_path, "cat", "1", "1")
    put(tmp_path, "dog", "1", "4")
    followed = await follow(tmp_path, mode="explicit", at_start=("dog",))
    repository = followed.repository
    assert await followed.rows() == [("cat", "", None), ("dog", "1", ModelState.READY)]

    await repository.load("cat")
    assert await ask(repository.get("cat")) == 1
    await repository.unload("dog")
    with pytest.raises(UnknownModel):
        repository.get("dog")
    await drained(repository)

    assert await followed.rows() == [("cat", "1", ModelState.READY), ("dog", "", None)]
    assert followed.unloaded == [("dog", "1")]
    await repository.load("dog")
    assert await ask(repository.get("dog")) == 4
    await repository.drain()


async def test_loading_again_takes_what_has_changed_and_leaves_what_has_not(tmp_path):
    put(tmp_path, "cat", "1", "1")
    followed = await follow(tmp_path, mode="explicit", at_start=("cat",))
    repository = followed.repository
    model = repository.get("cat")

    await repository.load("cat")
    assert repository.get("cat") is model
    put(tmp_path, "cat", "1", "2.5")
    await repository.load("cat")

    assert await ask(repository.get("cat")) == 2.5
    await repository.drain()


async def test_what_cannot_be_loaded_is_refused_with_the_reason_and_may_be_tried_again(tmp_path):
    put(tmp_path, "cat", "1", "broken")
    (tmp_path / "empty").mkdir()
    followed = await follow(tmp_path, mode="explicit")
    repository = followed.repository

    with pytest.raises(ModelLoadError, match="failed to load 'cat': version 1: the file is broken"):
        await repository.load("cat")
    with pytest.raises(ModelLoadError, match=r"failed to load 'empty': .* has no <version>"):
        await repository.load("empty")
    with pytest.raises(UnknownModel):
        await repository.load("cow")
    with pytest.raises(BadRequest):
        await repository.load("../cat")
    tries = followed.told.count(("cat", "1", False))
    with pytest.raises(ModelLoadError):
        await repository.load("cat")

    assert followed.told.count(("cat", "1", False)) > tries
    assert repository.not_ready() == {}
    await repository.drain()


async def test_a_load_that_fails_leaves_the_version_that_serves(tmp_path):
    put(tmp_path, "cat", "1", "1")
    followed = await follow(tmp_path, mode="explicit", at_start=("cat",))
    put(tmp_path, "cat", "2", "broken")

    with pytest.raises(ModelLoadError, match="version 2: the file is broken"):
        await followed.repository.load("cat")

    assert await ask(followed.repository.get("cat")) == 1
    await followed.repository.drain()


async def test_what_is_not_loaded_cannot_be_unloaded(tmp_path):
    put(tmp_path, "cat", "1", "1")
    followed = await follow(tmp_path, mode="explicit")

    with pytest.raises(UnknownModel):
        await followed.repository.unload("cat")
    with pytest.raises(BadRequest):
        await followed.repository.unload("a/b")
    await followed.repository.drain()


async def test_who_leaves_while_a_model_loads_leaves_it_loading(tmp_path):
    put(tmp_path, "cat", "1", "1")
    followed = await follow(tmp_path, mode="explicit")
    repository = followed.repository
    asked = asyncio.create_task(repository.load("cat"))
    await until(lambda: "cat" in repository)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked

    await repository.load("cat")

    assert followed.told.count(("cat", "1", True)) == 1, "it was loaded once"
    assert await ask(repository.get("cat")) == 1
    await repository.drain()


@pytest.mark.parametrize("mode", ["none", "poll"])
async def test_in_the_other_modes_nothing_is_loaded_or_unloaded_by_name(tmp_path, mode):
    put(tmp_path, "cat", "1", "1")
    followed = await follow(tmp_path, mode=mode)

    with pytest.raises(ClientError, match="--repository-mode explicit"):
        await followed.repository.load("cat")
    with pytest.raises(ClientError, match="--repository-mode explicit"):
        await followed.repository.unload("cat")
    await followed.repository.drain()


async def test_models_to_load_at_start_have_to_be_there(tmp_path):
    put(tmp_path, "cat", "1", "1")
    with pytest.raises(ValueError, match="no model dog to load at start"):
        await asyncio.to_thread(Followed, tmp_path, mode="explicit", at_start=("cat", "dog"))


async def test_an_empty_repository_is_ready_and_serves_nothing(tmp_path):
    followed = await follow(tmp_path, mode="explicit")

    assert followed.repository.not_ready() == {}
    with pytest.raises(ClientError, match="no model is served"):
        followed.repository.get(None)
    await followed.repository.drain()
