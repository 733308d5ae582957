"""Compiles the modules that every request passes, listed in pyproject.toml, with mypyc while the wheel is built.

    REDSERVE_COMPILE=1    where that fails, so does the build
    REDSERVE_COMPILE=0    plain Python, which does the same at about two thirds of the speed
    otherwise             compiled where there is a C compiler, else plain Python

An editable install is plain Python: in a compiled module an edit would change nothing.
"""

import os
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WANTED = os.environ.get("REDSERVE_COMPILE")


class CompileHook(BuildHookInterface[Any]):
    """hatchling's hook of the project's own."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before the wheel is packed."""
        if version == "editable" or WANTED == "0":
            return
        self._scratch = TemporaryDirectory()  # until this hook is gone, which is after the packing
        try:
            libraries = self._compiled(Path(self._scratch.name))
        except (Exception, SystemExit) as error:  # mypyc and setuptools exit where types or compiler fail
            if WANTED == "1":
                raise
            self.app.display_warning(f"redserve is built as plain Python, which is slower: {error}")
            return
        build_data["force_include"].update(libraries)
        build_data.update(pure_python=False, infer_tag=True)

    def _compiled(self, scratch: Path) -> dict[str, str]:
        """Compile; returns for each library its place in the wheel."""
        from mypyc.build import mypycify
        from setuptools import Distribution
        from setuptools.command.build_ext import build_ext

        # What redserve uses is not installed here: to mypyc it is of any type, as most of it would be anyway.
        options = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent", f"--cache-dir={scratch}"]
        with chdir(Path(self.root) / "src"):
            extensions = mypycify([*options, *self.config["modules"]], debug_level="0", target_dir=str(scratch / "c"))
            command = build_ext(Distribution({"name": "redserve", "ext_modules": extensions}))
            command.build_lib = command.build_temp = str(scratch)
            command.ensure_finalized()
            command.run()
        return {path: str(Path(path).relative_to(scratch)) for path in command.get_outputs()}
