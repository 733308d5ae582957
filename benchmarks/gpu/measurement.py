"""What every question here shares: its options, its seconds, and the file that it leaves.

    options ─ Measurement ─ cell, cell, ... ─> OUT/<script>.json, written anew after each of them

A cell that fails is written down with its error, and the next one is measured. The file says what it was measured on: a
figure of the CPU is none of a GPU.
"""

import argparse
import json
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from gpu.device import describe_device, versions

Device = Literal["cuda", "cpu"]
Cell = Mapping[str, Any]


class Measurement:
    """One script on its way.

    Args:
        script: Its file.
        doc: Its docstring; the question is the first sentence.
        arguments: More options than all have, by flag: what `add_argument` takes.

    Attributes:
        options: As given on the command line.
        device: What is measured.
        is_quick: Only whether it works is of interest.
    """

    def __init__(self, script: str, doc: str | None, *, arguments: Mapping[str, Any] | None = None) -> None:
        parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--device", choices=["cuda", "cpu"], required=True)
        parser.add_argument("--models", type=Path, required=True, metavar="DIR", help="made by gpu.prepare")
        parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the JSON goes")
        parser.add_argument("--quick", action="store_true", help="as little as shows that it works")
        parser.add_argument("--seconds", type=float, default=600.0, help="that it may take")
        for flag, about in (arguments or {}).items():
            parser.add_argument(flag, **about)
        self.options = parser.parse_args()
        self.device: Device = self.options.device
        self.is_quick: bool = self.options.quick
        self._name = Path(script).stem
        self._began_s = time.monotonic()
        self._deadline_s = self._began_s + self.options.seconds
        self._longest_s = 0.0
        self._failed: list[str] = []
        self._document: dict[str, Any] = {
            "question": " ".join((doc or "").split("\n\n")[0].split()),
            "command": f"python -m gpu.{self._name} --device {self.device}{' --quick' * self.is_quick}",
            "device": describe_device(self.device),
            "versions": versions(),
            "cells": {},
        }
        self.options.out.mkdir(parents=True, exist_ok=True)

    @property
    def left_s(self) -> float:
        """Of its seconds."""
        return max(0.0, self._deadline_s - time.monotonic())

    def cell(self, name: str, measure: Callable[[], Cell]) -> Cell:
        """Measure one thing: what was found, or why nothing. It is not begun if the longest so far would be late."""
        began_s = time.monotonic()
        if self.left_s <= self._longest_s:
            found: Cell = {"skipped": "no time was left"}
        else:
            try:
                found = measure()
            except Exception as error:
                self._failed.append(name)
                found = {"error": f"{type(error).__name__}: {error}"[:1000]}
                traceback.print_exc()
        self._longest_s = max(self._longest_s, time.monotonic() - began_s)
        self._document["cells"][name] = found
        self._document["seconds"] = round(time.monotonic() - self._began_s, 1)
        self._write()
        print(f"{self.device} {self._name} {name}: {json.dumps(found)[:600]}", flush=True)
        return found

    def end(self) -> int:
        """The exit status: 1 where a cell failed, or nothing was measured."""
        cells = self._document["cells"].values()
        return int(bool(self._failed) or all("skipped" in found for found in cells))

    def _write(self) -> None:
        path: Path = self.options.out / f"{self._name}.json"
        path.with_suffix(".writing").write_text(json.dumps(self._document, indent=1) + "\n")
        path.with_suffix(".writing").replace(path)
