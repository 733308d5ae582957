"""A virtual environment for each peer, in the cache that git ignores, with the runtime of models that redserve has."""

import hashlib
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".cache" / "peers"
SAME = ("onnxruntime", "numpy")
LIMIT_S = 600.0
VERSIONS = (
    "import json, sys, importlib.metadata as m;"
    "print(json.dumps({d.name.lower(): d.version for d in m.distributions()}))"
)
SHOWN = {"bentoml", "fastapi", "httptools", "litserve", "mosec", "numpy", "onnxruntime", "orjson", "pydantic"} | {
    "redserve",
    "starlette",
    "uvicorn",
    "uvloop",
}


def interpreter(name: str, packages: tuple[str, ...]) -> Path:
    """The Python of an environment with `packages`; made if it is not there. None: the one that runs this.

    Raises:
        RuntimeError: pip could not install them.
    """
    if not packages:
        return Path(sys.executable)
    wanted = [*packages, *(f"{package}=={version(package)}" for package in SAME)]
    key = " ".join([sys.base_prefix, sys.version, *wanted])
    folder = CACHE / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        print(f"making an environment for {name}: {' '.join(wanted)}", flush=True)
        _do([sys.executable, "-m", "venv", "--clear", str(folder)])
        _do([str(python), "-m", "pip", "install", "--quiet", *wanted])
        (folder / "complete").touch()
    return python


def versions(python: Path) -> dict[str, str]:
    """Of the packages that matter, and of Python."""
    found = json.loads(_do([str(python), "-c", VERSIONS]))
    numbers = _do([str(python), "-c", "import platform; print(platform.python_version())"]).strip()
    return {name: found[name] for name in sorted(SHOWN & found.keys())} | {"python": numbers}


def _do(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:5])} failed:\n{done.stderr[-2_000:]}")
    return done.stdout
