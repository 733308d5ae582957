"""What is compiled where there is a C compiler must be no surprise to whoever wrote for the plain form."""

import ast
import importlib
import tomllib
from pathlib import Path

import pytest

import redserve

SOURCE = Path(redserve.__file__).parents[1]
BUILD = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
MODULES = BUILD["targets"]["wheel"]["hooks"]["custom"]["modules"]
ROOMS = ["redserve", *(f"redserve.{room}" for room in ("batching", "metrics", "engine", "models", "protocol"))]
IMPLICIT = {"StrEnum", "Protocol"}  # nobody can derive from an enum with members; a Protocol is there to be fitted


def derivable(module: str) -> set[str]:
    """The classes of a file that a type checker lets anybody derive from."""
    classes = [node for node in ast.parse((SOURCE / module).read_text()).body if isinstance(node, ast.ClassDef)]
    return {
        each.name
        for each in classes
        if not IMPLICIT & {ast.unparse(base) for base in each.bases}
        and "final" not in {ast.unparse(decorator) for decorator in each.decorator_list}
    }


@pytest.mark.parametrize("room", ROOMS)
def test_an_exported_class_that_is_compiled_is_final(room: str):
    exported = set(importlib.import_module(room).__all__)

    assert {module: names for module in MODULES if (names := derivable(module) & exported)} == {}


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_compiled_that_is_awaited(module: str):
    nodes = ast.walk(ast.parse((SOURCE / module).read_text()))

    assert [node.name for node in nodes if isinstance(node, ast.AsyncFunctionDef)] == []
