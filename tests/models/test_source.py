import itertools
import os
import shutil

import pytest

from models.model_folder import open_folder, put
from redserve.errors import BadRequest
from redserve.models.listing import Listing, checked_name, list_models, settle


def chosen(folder, **how):
    """The versions that are wanted of each model, or what is wrong with it."""
    return {name: wanted.problem or [*wanted.versions] for name, wanted in folder.look(**how).items()}


def prints(folder, **how):
    found = folder.look(**how)
    return {name: {key: each.fingerprint for key, each in wanted.versions.items()} for name, wanted in found.items()}


def test_a_folder_has_models_by_name_and_version_and_plain_files(tmp_path):
    put(tmp_path, "cat", "1", "1")
    put(tmp_path, "cat", "10", "1")
    put(tmp_path, "cat", "9", "1")
    (tmp_path / "dog.v2.onnx").write_text("2")

    assert chosen(open_folder(tmp_path)) == {"cat": ["10"], "dog.v2": ["1"]}


def test_what_is_no_model_is_passed_over(tmp_path):
    put(tmp_path, "cat", "1", "1")
    for version in ("0", "01", "-1", "latest", "1.5", "2.tmp"):
        put(tmp_path, "cat", version, "1")
    (tmp_path / "cat" / "3").mkdir()  # nothing in it yet
    put(tmp_path, ".cat", "1", "1")
    put(tmp_path, "_cat", "1", "1")
    (tmp_path / ".cat.onnx").write_text("1")
    (tmp_path / "README.md").write_text("models")
    (tmp_path / "dog.onnx.data").write_text("weights")

    assert chosen(open_folder(tmp_path)) == {"cat": ["1"]}


def test_the_configuration_chooses_the_versions(tmp_path):
    for version in "123":
        put(tmp_path, "cat", version, "1")
    config = tmp_path / "cat" / "config.toml"
    folder = open_folder(tmp_path)

    config.write_text("all")
    assert chosen(folder) == {"cat": ["3", "2", "1"]}
    config.write_text("only 1 3")
    assert chosen(folder) == {"cat": ["3", "1"]}
    config.write_text("only 1 7 8")
    assert chosen(folder) == {"cat": f"{config}: versions: there is no version 7, 8"}
    assert list(folder.look()["cat"].versions) == ["1"]


def test_a_configuration_that_cannot_be_read_leaves_the_versions_as_they_were(tmp_path):
    put(tmp_path, "cat", "1", "1")
    folder = open_folder(tmp_path)
    before = prints(folder)
    config = tmp_path / "cat" / "config.toml"
    config.write_text("nonsense")
    put(tmp_path, "cat", "2", "1")

    assert chosen(folder) == {"cat": f"{config}: what is nonsense?"}
    assert prints(folder) == before
    config.write_text("1")
    assert chosen(folder) == {"cat": ["2"]}


def test_a_model_without_versions_and_a_name_that_is_none_are_problems(tmp_path):
    (tmp_path / "cat").mkdir()
    put(tmp_path, "black cat", "1", "1")
    put(tmp_path, "dog", "1", "1")
    (tmp_path / "dog.onnx").write_text("1")

    problems = chosen(open_folder(tmp_path))

    assert problems["cat"] == f"{tmp_path / 'cat'} has no <version>/model.onnx, where a version is a number from 1 on"
    assert "a model's name is made of" in problems["black cat"]
    assert problems["dog"] == f"{tmp_path}: both a folder and a file are named 'dog'"


def test_a_configuration_that_is_no_file_is_a_problem_of_its_model_alone(tmp_path):
    put(tmp_path, "cat", "1", "1")
    put(tmp_path, "dog", "1", "1")
    config = tmp_path / "cat" / "config.toml"
    config.mkdir()

    assert chosen(open_folder(tmp_path)) == {"cat": f"{config}: Is a directory", "dog": ["1"]}


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_folder(tmp_path / "nowhere").look()


def test_any_change_of_a_versions_files_changes_its_fingerprint(tmp_path):
    path = put(tmp_path, "cat", "1", "1")
    (tmp_path / "dog.onnx").write_text("1")
    folder = open_folder(tmp_path)
    seen = [prints(folder)]

    path.write_text("22")  # another size
    seen.append(prints(folder))
    os.utime(path, ns=(1, 1))  # another time
    seen.append(prints(folder))
    copy = path.with_name("copy")
    shutil.copy2(path, copy)
    copy.replace(path)  # the same bytes and time, another file
    seen.append(prints(folder))
    (path.parent / "weights.bin").write_text("external data")
    seen.append(prints(folder))
    (path.parent / "deep").mkdir()
    (path.parent / "deep" / "weights.bin").write_text("external data")
    seen.append(prints(folder))
    (tmp_path / "cat" / "labels.txt").write_text("cat")
    seen.append(prints(folder))
    (tmp_path / "dog.onnx.data").write_text("external data")
    seen.append(prints(folder))

    assert all(before != after for before, after in itertools.pairwise(seen))
    assert prints(folder) == seen[-1]


def test_a_version_that_is_added_does_not_change_the_others(tmp_path):
    put(tmp_path, "cat", "1", "1")
    (tmp_path / "cat" / "config.toml").write_text("all")
    folder = open_folder(tmp_path)
    before = prints(folder)["cat"]
    put(tmp_path, "cat", "2", "1")

    after = prints(folder)["cat"]

    assert after.keys() == {"1", "2"}
    assert after["1"] == before["1"]


def test_a_change_counts_once_two_looks_agree(tmp_path):
    put(tmp_path, "cat", "1", "1")
    folder = open_folder(tmp_path)
    assert chosen(folder) == {"cat": ["1"]}

    growing = put(tmp_path, "cat", "2", "half")
    assert chosen(folder, only_settled=True) == {"cat": ["1"]}
    growing.write_text("half and half")
    assert chosen(folder, only_settled=True) == {"cat": ["1"]}
    assert chosen(folder, only_settled=True) == {"cat": ["2"]}
    shutil.rmtree(tmp_path / "cat")
    assert chosen(folder, only_settled=True) == {"cat": ["2"]}
    assert chosen(folder, only_settled=True) == {}


def test_one_model_that_keeps_changing_does_not_hold_up_another():
    a, b, c = (Listing({"1": path}, {"1": ((str(path), 1, 1, 1),)}) for path in map(str, range(3)))  # type: ignore[dict-item]

    assert settle({}, {"cat": a}, {"cat": b, "dog": c}) == {}
    assert settle({"cat": a}, {"cat": b, "dog": c}, {"cat": c, "dog": c}) == {"cat": a, "dog": c}
    assert settle({"cat": a}, {}, {}) == {}


@pytest.mark.parametrize("name", ["cat", "Cat-2.1_x", "0", "x" * 255])
def test_a_name_is_a_name(name):
    assert checked_name(name) == name


@pytest.mark.parametrize(
    "name", ["", " ", "..", ".", "a/b", "a\\b", "../a", "a\0", " a", "a ", "a\n", "-a", "_a", ".a", "ä", "x" * 256]
)
def test_what_could_be_more_than_a_name_is_refused(name):
    with pytest.raises(BadRequest, match="a model's name is made of"):
        checked_name(name)


def test_a_symbolic_link_is_what_it_points_to(tmp_path):
    put(tmp_path / "there", "cat", "1", "1")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "cat").symlink_to(tmp_path / "there" / "cat")

    assert list_models(tmp_path / "here")["cat"].paths.keys() == {"1"}
