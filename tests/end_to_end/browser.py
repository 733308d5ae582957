"""A real headless Chromium: one on PATH, else in `.cache/tools/chromium`, else unpacked there from Debian.

Nothing is installed: what `apt-get install` would bring is downloaded and unpacked beside each other, libraries too.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tools import CACHE, ToolsMissing

PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome")
PACKAGE = "chromium-headless-shell"
UNPACK_LIMIT_S = 300.0
PAGE_LIMIT_S = 60.0
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")


@dataclass(frozen=True)
class Browser:
    """Opens local pages.

    Attributes:
        program: Chromium.
        libraries: Where its libraries lie, if they came with it.
    """

    program: Path
    libraries: str = ""

    def dom(self, page: Path, *, width: int, height: int) -> str:
        """The document of a window of this size, after its scripts have run."""
        return self._open(page, "--dump-dom", f"--window-size={width},{height}")

    def screenshot(self, page: Path, picture: Path, *, width: int, height: int) -> None:
        """A PNG of the upper `height` pixels."""
        self._open(page, f"--screenshot={picture}", f"--window-size={width},{height}")

    def _open(self, page: Path, *flags: str) -> str:
        with tempfile.TemporaryDirectory() as profile:
            command = [str(self.program), *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
            return subprocess.run(
                command,
                env=os.environ | {"LD_LIBRARY_PATH": self.libraries},
                capture_output=True,
                text=True,
                timeout=PAGE_LIMIT_S,
                check=True,
            ).stdout


def find_browser(*, cache: Path = CACHE) -> Browser:
    """Find Chromium; fetch it into `cache` when it is nowhere.

    Raises:
        ToolsMissing: It is not here, and Debian's packages could not be fetched.
    """
    for program in PROGRAMS:
        found = shutil.which(program)
        if found:
            return Browser(Path(found))
    if not (cache / "chromium").exists():
        _unpack(cache, deadline_s=time.monotonic() + UNPACK_LIMIT_S)
    root = cache / "chromium" / "usr" / "lib"
    libraries = [str(folder) for folder in root.glob("*-linux-gnu*")]
    inner = [str(folder) for folder in root.glob("*-linux-gnu*/pulseaudio")]
    return Browser(root / "chromium" / PACKAGE, ":".join((*libraries, *inner)))


def _unpack(cache: Path, *, deadline_s: float) -> None:
    for command in ("apt-get", "dpkg"):
        if shutil.which(command) is None:
            raise ToolsMissing(f"no chromium on PATH or in .cache/tools, and no {command} to fetch it")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".unpack-") as name:
        folder = Path(name)
        simulate = ["apt-get", "-s", "install", "--no-install-recommends", PACKAGE]
        try:
            planned = _run(simulate, folder, deadline_s)
        except ToolsMissing:
            if os.geteuid() != 0:  # the index is empty or old, and only root may renew it
                raise
            _run(["apt-get", "update"], folder, deadline_s)
            planned = _run(simulate, folder, deadline_s)
        packages = re.findall(r"^Inst (\S+)", planned, re.MULTILINE)
        _run(["apt-get", "download", *packages], folder, deadline_s)
        for package in folder.glob("*.deb"):
            _run(["dpkg", "-x", str(package), "unpacked"], folder, deadline_s)
        try:
            (folder / "unpacked").replace(cache / "chromium")
        except OSError:
            if not (cache / "chromium").exists():  # else another run of the tests was quicker
                raise


def _run(command: list[str], folder: Path, deadline_s: float) -> str:
    try:
        limit_s = max(0.0, deadline_s - time.monotonic())
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=limit_s, check=True)
    except (subprocess.SubprocessError, OSError) as error:
        said = (getattr(error, "stderr", "") or "").strip().splitlines()
        raise ToolsMissing(f"no chromium, and `{' '.join(command[:3])}`: {said[-1] if said else error}") from None
    return done.stdout
