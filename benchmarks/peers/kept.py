"""The file of results of a workload: the latest run of each number of connections and cores, and set of contestants."""

import json
from pathlib import Path
from typing import Any


def keep(path: Path, run: dict[str, Any], **facts: Any) -> None:
    """Write a run; it takes the place of an earlier one with the same connections, server cores and contestants."""
    document = {**facts, "runs": [*(one for one in _runs(path) if _key(one) != _key(run)), run]}
    document["runs"].sort(key=_key)
    path.write_text(json.dumps(document, indent=1) + "\n")


def choice_kept(path: Path, name: str, connections: int, server_cores: int) -> dict[str, Any] | None:
    """What a contestant has chosen of its settings in a run that is kept; `None`: nothing."""
    for run in _runs(path):
        chosen = run["contestants"].get(name)
        if chosen is not None and chosen["tried"] and _key(run)[:2] == (connections, server_cores):
            return {"setting": chosen["setting"], "tried": chosen["tried"]}
    return None


def _runs(path: Path) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = json.loads(path.read_text())["runs"] if path.exists() else []
    return runs


def _key(run: dict[str, Any]) -> tuple[int, int, list[str]]:
    return run["connections"], run.get("server_cores", 0), sorted(run["contestants"])
