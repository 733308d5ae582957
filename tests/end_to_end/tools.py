"""Where a real Prometheus is: on PATH, else in `.cache/tools/` of the repository, else unpacked there from Debian.

Nothing is installed and no daemon is started: `apt-get download` fetches the package into a temporary folder, `dpkg -x`
unpacks it, and each program is renamed into place, so two sessions may do this at once and never run half a program.
"""

import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".cache" / "tools"
PROGRAMS = ("prometheus", "promtool")
UNPACK_LIMIT_S = 150.0


class ToolsMissing(Exception):
    """The programs are not here and could not be fetched; the message says why."""


@dataclass(frozen=True)
class Tools:
    """The programs that the tests start.

    Attributes:
        prometheus: The server.
        promtool: Its checker of configurations and rules.
    """

    prometheus: Path
    promtool: Path


def are_required() -> bool:
    """Whether a missing tool is a failure (`REDSERVE_REQUIRE_TOOLS=1`) and not a skip."""
    return os.environ.get("REDSERVE_REQUIRE_TOOLS", "0") not in ("", "0")


def find_tools(*, cache: Path = CACHE, limit_s: float = UNPACK_LIMIT_S) -> Tools:
    """Find both programs; fetch them into `cache` when they are nowhere.

    Raises:
        ToolsMissing: They are not here, and Debian's package could not be fetched within `limit_s`.
    """
    found = _find_both(cache)
    if found is None:
        _unpack_debian_package(cache, deadline_s=time.monotonic() + limit_s)
        found = _find_both(cache)
    if found is None:
        raise ToolsMissing(f"Debian's package brought no {' and '.join(PROGRAMS)} that can be run")
    return found


def _find_both(cache: Path) -> Tools | None:
    """Both from one place, so that their versions agree."""
    for path in (None, str(cache)):  # None is PATH
        found = [shutil.which(program, path=path) for program in PROGRAMS]
        if all(found):
            return Tools(*(Path(program) for program in found if program))
    return None


def _unpack_debian_package(cache: Path, *, deadline_s: float) -> None:
    for command in ("apt-get", "dpkg"):
        if shutil.which(command) is None:
            raise ToolsMissing(f"no prometheus and promtool on PATH or in .cache/tools, and no {command} to fetch them")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".unpack-") as folder:
        _download("prometheus", Path(folder), deadline_s=deadline_s)
        (package,) = Path(folder).glob("prometheus_*.deb")
        _run(["dpkg", "-x", str(package), "unpacked"], cwd=Path(folder), deadline_s=deadline_s)
        for program in PROGRAMS:
            (Path(folder) / "unpacked" / "usr" / "bin" / program).replace(cache / program)


def _download(package: str, folder: Path, *, deadline_s: float) -> None:
    command = ["apt-get", "download", package]
    try:
        _run(command, cwd=folder, deadline_s=deadline_s)
    except ToolsMissing:
        if os.geteuid() != 0:  # the index is empty or old, and only root may renew it
            raise
        _run(["apt-get", "update"], cwd=folder, deadline_s=deadline_s)
        _run(command, cwd=folder, deadline_s=deadline_s)


def _run(command: list[str], *, cwd: Path, deadline_s: float) -> None:
    what = f"no prometheus and promtool on PATH or in .cache/tools, and `{' '.join(command[:2])}`"
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=max(0.0, deadline_s - time.monotonic()),
        )
    except subprocess.TimeoutExpired:
        raise ToolsMissing(f"{what} took too long") from None
    if done.returncode != 0:
        last_line = (done.stdout.strip().splitlines() or ["it said nothing"])[-1]
        raise ToolsMissing(f"{what} failed: {last_line}")
