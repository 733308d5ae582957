"""The floors of `redserve/__init__.py`: who may import whom, in this package and from others."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import redserve
import redserve.bench

SOURCE = Path(redserve.__file__).parent
FLOORS = {
    "errors": 0,
    "metrics": 1,
    "batching": 1,
    "engine": 1,
    "demo": 1,
    "answers": 2,
    "middleware": 2,
    "observed_request": 2,
    "routes": 2,
    "route_table": 2,
    "compiled": 2,
    "protocol": 2,
    "models": 3,
    "bench": 3,
    "server": 4,
    "offline": 4,
    "cli": 5,
}
ASGI_ROOM = ("answers", "middleware", "observed_request", "routes", "route_table")  # files of one room
ONE_ROOM = dict.fromkeys(ASGI_ROOM, "asgi")
THIRD_PARTY = {
    "errors": set(),
    "metrics": {"prometheus_client"},
    "batching": set(),
    "engine": {"ml_dtypes", "numpy", "onnxruntime"},
    "demo": {"numpy"},
    "answers": set(),
    "middleware": {"prometheus_client"},
    "observed_request": set(),
    "routes": set(),
    "route_table": set(),
    "compiled": set(),
    "protocol": {"numpy", "msgspec", "orjson"},
    "models": {"numpy"},
    "bench": {"hdrh", "httptools", "matplotlib", "msgspec", "numpy", "orjson", "prometheus_client", "rich", "uvloop"},
    "offline": {"numpy", "orjson", "rich"},
    "server": {
        "fastapi",
        "fastapi_offline",
        "httptools",
        "numpy",
        "orjson",
        "prometheus_client",
        "pydantic",
        "pydantic_settings",
        "starlette",
        "uvicorn",
    },
    "cli": set(),
}
FILES = sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or path.stem in FLOORS)


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            module = node.module or ""
            found |= {f"redserve.{alias.name}" for alias in node.names} if module == "redserve" else {module}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_imports_its_own_room_and_lower_floors_only(path):
    room = room_of(path)
    for name in imports_of(path):
        package, _, rest = name.partition(".")
        if package == "redserve":
            other = rest.partition(".")[0]
            same_room = ONE_ROOM.get(other, other) == ONE_ROOM.get(room, room)
            assert same_room or FLOORS[other] < FLOORS[room], f"{room} imports {name}"
        else:
            allowed = package in sys.stdlib_module_names or package in THIRD_PARTY[room]
            assert allowed or (room == "middleware" and package == "opentelemetry"), f"{room} imports {name}"


def test_onnxruntime_is_imported_by_the_files_about_it_only():
    importers = {path.name for path in FILES if "onnxruntime" in {name.split(".")[0] for name in imports_of(path)}}

    assert all(name.startswith("onnx_") for name in importers), importers


BLOCK = """
import sys
for name in ("numpy", "onnxruntime", "fastapi", "starlette", "uvicorn", "pydantic", "msgspec", "orjson", "anyio"):
    sys.modules[name] = None
"""


@pytest.mark.parametrize(
    "use",
    [
        """
import asyncio, redserve
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
async def receive():
    return {"type": "http.request", "body": b"", "more_body": False}
async def get(path):
    sent = []
    async def send(message): sent.append(message)
    await middleware({"type": "http", "method": "GET", "path": path, "headers": []}, receive, send)
    return b"".join(message.get("body", b"") for message in sent)
middleware = redserve.REDMiddleware(app)
async def main():
    assert await get("/") == b"hello"
    assert b'inference_requests_received_total{method="GET"} 1' in await get("/metrics")
asyncio.run(main())
""",
        """
import asyncio, redserve
@redserve.batched(max_batch_size=4)
def double(numbers: list[int]) -> list[int]:
    return [2 * number for number in numbers]
async def main():
    assert await asyncio.gather(*map(double, range(9))) == [2 * number for number in range(9)]
    await double.aclose()
asyncio.run(main())
""",
    ],
    ids=["the middleware", "the batcher"],
)
def test_it_works_with_prometheus_client_alone(use):
    done = subprocess.run([sys.executable, "-c", BLOCK + use], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr


def test_what_is_public_is_listed_sorted_and_there():
    for module in (redserve, redserve.batching, redserve.bench, redserve.metrics):
        assert list(module.__all__) == sorted(module.__all__, key=str), module.__name__
        assert all(hasattr(module, name) for name in module.__all__)
