"""What every test may ask for."""

from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import settings
from prometheus_client import CollectorRegistry

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop() -> Iterator[None]:
    """A file read, a sleep or a wait for a lock, by this package on an event loop, fails the test."""
    with blockbuster_ctx("redserve") as blockbuster:
        for function in ("os.stat", "os.listdir", "io.BufferedReader.read", "io.TextIOWrapper.read"):
            blockbuster.functions[function].can_block_in("redserve/server/app.py", {"create_app"})  # before serving
            blockbuster.functions[function].can_block_in("mimetypes.py", {"init"})  # once a process, by static files
        yield


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, the only loop that the project speaks."""
    return "asyncio"


@pytest.fixture
def registry() -> CollectorRegistry:
    """A registry that no other test writes to."""
    return CollectorRegistry()
