"""Alert rules and dashboard: they ask for what a worker tells, and each alert fires and resolves."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from app.metrics import MeteredLedger, PrometheusMetrics
from app.ops.gauges import Gauges, Sources
from app.settings import load_settings
from schemas.control import LaneState, LimitState
from tests.unit.ops.test_figures import board

DEPLOY = Path(__file__).parents[3] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"

#: Only metrics have such a prefix, and no label.
METRIC = re.compile(r"\b(?:ai|process)_[a-z0-9_]+\b")


@pytest.fixture(scope="module")
def told() -> set[str]:
    """The names of all series that a worker can have."""
    registry = CollectorRegistry()
    months = board()
    PrometheusMetrics(registry, months)
    MeteredLedger(load_settings(), registry)
    used = {name: LimitState(used=1, limit=2) for name in ("rpm", "rph", "tpm", "tph")}
    lane = LaneState(lane="claude/0", provider="claude", wait=0.0, at=datetime(2026, 11, 25, tzinfo=UTC), **used)
    registry.register(Gauges(Sources(lambda: [lane], dict, months.overview, dict, lambda: 0, lambda: 0.0)))
    names = set()
    for family in registry.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(family.type, [""])
        names |= {family.name + suffix for suffix in suffixes}
    return names


def rules() -> list[dict[str, Any]]:
    [group] = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    return list(group["rules"])


def expressions() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule["alert"], rule["expr"]
    dashboard = json.loads((DEPLOY / "grafana/dashboards/spillway.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_rules_and_dashboard_ask_only_for_what_a_worker_tells(where: str, expression: str, told: set[str]) -> None:
    asked = set(METRIC.findall(expression))
    assert asked or expression.startswith("up{"), where
    assert asked <= told, where


def test_each_alert_says_how_bad_it_is_and_what_has_happened() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
        assert rule["annotations"]["summary"].endswith((".", "}}")), rule["alert"]


def test_each_alert_is_made_to_fire_and_to_stay_silent_by_the_tests_of_the_rules() -> None:
    tests = yaml.safe_load((PROMETHEUS / "rules.test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    for rule in rules():
        own = [bool(case["exp_alerts"]) for case in cases if case["alertname"] == rule["alert"]]
        assert set(own) == {True, False}, rule["alert"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize(
    "command",
    [("check", "config", "prometheus.yml"), ("check", "rules", "rules.yml"), ("test", "rules", "rules.test.yml")],
)
def test_prometheus_own_tool_accepts_them(command: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *command], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_names_that_are_part_of_the_contract_are_told(told: set[str]) -> None:
    totals = {f"ai_{name}_total" for name in ("requests", "errors", "cost_usd", "tokens")}
    others = {"ai_request_duration_seconds_bucket", "ai_provider_available", "ai_monthly_cost_usd"}
    assert totals | others <= told
