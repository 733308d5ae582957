"""Where a result was made: the machine and the versions, as text."""

import importlib.metadata
import os
import platform
from pathlib import Path

from redserve.compiled import IS_COMPILED

_PACKAGES = ("redserve", "httptools", "uvloop", "hdrhistogram", "numpy")


def environment() -> dict[str, str]:
    """What may explain a number later."""
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "code": "compiled" if IS_COMPILED else "plain Python",
        **{package: importlib.metadata.version(package) for package in _PACKAGES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"
