"""What every test may ask for."""

import pytest
from hypothesis import settings
from prometheus_client import CollectorRegistry

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, the only loop that the project speaks."""
    return "asyncio"


@pytest.fixture
def registry() -> CollectorRegistry:
    """A registry that no other test writes to."""
    return CollectorRegistry()
