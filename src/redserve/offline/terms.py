"""What a job's answers depend on: a job goes on under equal terms only."""

import hashlib
import mmap
from pathlib import Path
from typing import Any

from redserve.offline.failures import JobFailed

_LARGEST_GRAPH_BYTES = 64 * 2**20
"""A larger model file has its weights inside: a graph alone takes less."""


def fingerprint(model: Path) -> str:
    """SHA-256 of a model's file, and of the files beside it that it names: its external data."""
    content = hashlib.sha256()
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        content.update(mapped)
        beside: list[Path] = []
        if len(mapped) < _LARGEST_GRAPH_BYTES:
            beside = sorted(path for path in model.parent.iterdir() if path != model and path.is_file())
        named = [path for path in beside if mapped.find(path.name.encode()) >= 0]
    for path in named:
        with path.open("rb") as file:
            content.update(hashlib.file_digest(file, "sha256").digest())
    return content.hexdigest()


def check_terms(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Hold the terms of a job against those that it was begun with.

    Raises:
        JobFailed: They differ; names what.
    """
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise JobFailed(
                f"what is done was done with another {name.replace('_', ' ')} ({before.get(name)}, now "
                f"{now.get(name)}); --restart begins anew"
            )
