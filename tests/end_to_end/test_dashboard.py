"""The deployable dashboard: well formed, about metrics that exist, each expression with data in a real Prometheus."""

import json
import math
import re
from itertools import combinations
from typing import Any

import pytest
from busy_app import MODEL, sample_names
from live_app import LiveApp
from prometheus_server import PrometheusServer
from tools import REPOSITORY

pytestmark = pytest.mark.timeout(300)  # the first of these tests may also fetch the tools

DASHBOARD: dict[str, Any] = json.loads((REPOSITORY / "examples" / "grafana" / "redserve.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
TARGETS = [
    pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for panel in PANELS
    for target in panel.get("targets", [])
]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
GRID_COLUMNS = 24


def substituted(expression: str, *, job: str, model: str) -> str:
    """The expression as Grafana sends it."""
    for variable, value in {"$__rate_interval": "1m", "$job": job, "$model": model}.items():
        expression = expression.replace(variable, value)
    return expression


def test_the_version_of_its_schema_is_a_recent_one() -> None:
    assert DASHBOARD["schemaVersion"] >= 39  # Grafana 10.4
    assert DASHBOARD["id"] is None
    assert DASHBOARD["uid"] == "redserve"


def test_the_data_source_the_jobs_and_the_models_can_be_chosen() -> None:
    assert list(VARIABLES) == ["datasource", "job", "model"]
    assert VARIABLES["datasource"]["type"] == "datasource"
    assert VARIABLES["datasource"]["query"] == "prometheus"
    for name in ("job", "model"):
        assert VARIABLES[name]["datasource"] == SOURCE
        assert VARIABLES[name]["allValue"] == ".*"  # also the requests that no model answered


def test_every_panel_has_an_id_of_its_own_a_title_and_a_description() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    assert [panel["title"] for panel in PANELS if panel["type"] != "row" and not panel["description"]] == []


def test_no_panel_lies_over_another_or_outside_of_the_grid() -> None:
    cells = {
        panel["title"]: {
            (column, line)
            for column in range(grid["x"], grid["x"] + grid["w"])
            for line in range(grid["y"], grid["y"] + grid["h"])
        }
        for panel in PANELS
        for grid in [panel["gridPos"]]
    }

    assert [(one, other) for one, other in combinations(cells, 2) if cells[one] & cells[other]] == []
    assert [title for title, taken in cells.items() if max(column for column, _ in taken) >= GRID_COLUMNS] == []


def test_every_query_goes_to_the_chosen_data_source_under_a_letter_of_its_own() -> None:
    for panel in PANELS:
        targets = panel.get("targets", [])
        assert bool(targets) == (panel["type"] != "row"), panel["title"]
        assert [target["datasource"] for target in targets] == [SOURCE] * len(targets)
        assert len({target["refId"] for target in targets}) == len(targets), panel["title"]


@pytest.mark.parametrize("expression", TARGETS)
def test_every_expression_can_be_narrowed_to_a_job_and_uses_no_unknown_variable(expression: str) -> None:
    selectors = re.findall(r"inference_\w+(\{[^}]*\})?", expression)

    assert selectors
    assert all('job=~"$job"' in selector for selector in selectors)
    assert set(re.findall(r"\$(\w+)", expression)) <= {*VARIABLES, "__rate_interval"}


@pytest.mark.parametrize("expression", TARGETS)
def test_every_latency_shown_is_of_what_was_served(expression: str) -> None:
    for selector in re.findall(r"inference_request_latency_seconds_\w+(\{[^}]*\})", expression):
        assert 'outcome="ok"' in selector


@pytest.mark.parametrize("expression", TARGETS)
def test_every_metric_of_an_expression_is_in_the_exposition(expression: str, busy: LiveApp) -> None:
    assert set(re.findall(r"inference_\w+", expression)) <= sample_names(busy)


@pytest.mark.parametrize("model", [".*", MODEL], ids=["all models", "one model"])
@pytest.mark.parametrize("expression", TARGETS)
def test_every_expression_has_data_in_a_real_prometheus(
    expression: str, model: str, prometheus: PrometheusServer, scraped_busy: str
) -> None:
    samples = prometheus.query(substituted(expression, job=scraped_busy, model=model))

    assert samples
    assert all(math.isfinite(value) for _, value in samples)


@pytest.mark.parametrize("name", ["job", "model"])
def test_every_variable_finds_its_values(name: str, prometheus: PrometheusServer, scraped_busy: str) -> None:
    (query,) = re.fullmatch(rf"label_values\((.*), {name}\)", VARIABLES[name]["definition"]).groups()  # type: ignore[union-attr]
    samples = prometheus.query(substituted(query, job=scraped_busy, model=".*"))

    assert {"job": scraped_busy, "model": MODEL}[name] in {labels.get(name) for labels, _ in samples}
