"""What the end-to-end tests share: the tools, one real Prometheus a session, apps on a real uvicorn."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from browser import Browser, find_browser
from busy_app import busy_app, keep_busy
from live_app import LiveApp
from prometheus_client import CollectorRegistry
from prometheus_server import PrometheusServer
from tools import REPOSITORY, Tools, ToolsMissing, are_required, find_tools


@pytest.fixture(scope="session")
def tools() -> Tools:
    """`prometheus` and `promtool`; a test that asks for them is skipped, or fails where they are required, without."""
    try:
        return find_tools()
    except ToolsMissing as missing:
        if are_required():
            pytest.fail(f"REDSERVE_REQUIRE_TOOLS is set: {missing}", pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def browser() -> Browser:
    """A real Chromium, or a skip or failure as of `tools`."""
    try:
        return find_browser()
    except ToolsMissing as missing:
        if are_required():
            pytest.fail(f"REDSERVE_REQUIRE_TOOLS is set: {missing}", pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def prometheus(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """The session's Prometheus; it evaluates the rules of `examples/prometheus/`."""
    rules = REPOSITORY / "examples" / "prometheus" / "redserve.rules.yml"
    with PrometheusServer(tools.prometheus, tmp_path_factory.mktemp("prometheus"), rule_files=[rules]) as server:
        yield server


@pytest.fixture
def serve() -> Iterator[Callable[..., LiveApp]]:
    """`serve(app, **uvicorn_config)`: the app, live until the test ends."""
    with ExitStack() as running:

        def start(app: Any, **config: Any) -> LiveApp:
            return running.enter_context(LiveApp(app, **config))

        yield start


@pytest.fixture(scope="session")
def busy() -> Iterator[LiveApp]:
    """The busy app, live, after some traffic; it needs no tools."""
    with LiveApp(busy_app(CollectorRegistry())) as live:
        keep_busy(live)
        yield live


@pytest.fixture(scope="session")
def scraped_busy(busy: LiveApp, prometheus: PrometheusServer) -> str:
    """The job under which Prometheus has scraped the busy app, before and after more traffic: rates have data."""
    prometheus.add_target("busy", busy.port)
    prometheus.wait_for_scrape("busy")
    keep_busy(busy)
    prometheus.wait_for_scrape("busy")
    return "busy"
