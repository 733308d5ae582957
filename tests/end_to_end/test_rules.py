"""The deployable rules: accepted by promtool, proved by their own cases, about metrics and bounds that really exist."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from busy_app import sample_names
from live_app import LiveApp
from prometheus_server import PrometheusServer
from tools import REPOSITORY, Tools

from redserve import latency_buckets

pytestmark = pytest.mark.timeout(300)  # the first of these tests may also fetch the tools

FOLDER = REPOSITORY / "examples" / "prometheus"
RULES = FOLDER / "redserve.rules.yml"
CASES = FOLDER / "redserve.rules.test.yml"


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def promtool(tools: Tools, *arguments: str | Path) -> None:
    done = subprocess.run([tools.promtool, *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_accepts_the_configuration(tools: Tools) -> None:
    promtool(tools, "check", "config", "prometheus.yml")


def test_prometheus_accepts_the_rules(tools: Tools) -> None:
    promtool(tools, "check", "rules", "--lint-fatal", RULES.name)


def test_every_case_of_the_rules_holds(tools: Tools) -> None:
    promtool(tools, "test", "rules", CASES.name)


def test_every_recording_rule_has_a_case() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    cases = yaml.safe_load(CASES.read_text())["tests"]
    expressions = " ".join(case["expr"] for test in cases for case in test.get("promql_expr_test", []))

    assert {name for name in recorded if name not in expressions} == set()


def test_every_alert_has_a_case_that_fires_and_a_test_in_which_it_never_does() -> None:
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    firing, silent = set(), set()
    for test in yaml.safe_load(CASES.read_text())["tests"]:
        cases = test.get("alert_rule_test", [])
        fired = {case["alertname"] for case in cases if case["exp_alerts"]}
        firing |= fired
        silent |= {case["alertname"] for case in cases} - fired

    assert len(alerts) == 4
    assert firing == silent == alerts


def test_every_metric_that_a_rule_reads_is_in_the_exposition(busy: LiveApp) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    read = {name for rule in rules() for name in re.findall(r"[\w:]*inference_[\w:]+", rule["expr"])}

    assert read - recorded <= sample_names(busy)


def test_every_bound_that_a_rule_names_is_one_of_the_default_histogram_as_it_is_printed(busy: LiveApp) -> None:
    named = {bound for rule in rules() for bound in re.findall(r'le="([^"]+)"', rule["expr"])}
    printed = re.findall(r'inference_request_latency_seconds_bucket{.*le="([^"]+)"', busy.get("/metrics"))

    assert named
    assert named <= set(printed)
    assert named <= {str(bound) for bound in latency_buckets()}


def test_the_job_that_an_alert_looks_at_is_the_one_that_is_scraped() -> None:
    named = {job for rule in rules() for job in re.findall(r'job="([^"]+)"', rule["expr"])}
    scraped = {job["job_name"] for job in yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]}

    assert named == scraped


def test_every_rule_is_healthy_and_every_record_has_data_in_a_real_prometheus(
    prometheus: PrometheusServer, scraped_busy: str
) -> None:
    loaded = prometheus.evaluated_rules()

    assert {rule["name"]: rule["health"] for rule in loaded} == {
        rule.get("record") or rule["alert"]: "ok" for rule in rules()
    }
    for rule in loaded:
        if rule["type"] == "recording":
            assert prometheus.wait_for(f'{rule["name"]}{{job="{scraped_busy}"}} >= 0')
