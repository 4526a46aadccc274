"""Budgets from the command line, against a real broker and without a worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.cli.main import app
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.budget import BudgetAction, BudgetChange, BudgetState
from schemas.codec import decode, encode
from streams.topology import BUDGET_STATE, BUDGETS
from tests.support.clock.months import in_one_month
from tests.support.reader.topics import publish
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def _here(stack: DevStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_STACK_DIR", str(stack.folder))
    monkeypatch.setenv("NO_COLOR", "1")
    asyncio.run(in_one_month(40))


@pytest.fixture
def workspace(settings: Settings) -> Iterator[str]:
    """A workspace that no other test knows; what is said of it is taken back."""
    name = unique("w")
    yield name
    asyncio.run(publish(settings.kafka_bootstrap_servers, BUDGETS, [(name.encode(), None)]))
    gone: list[tuple[bytes | None, bytes | None]] = [
        (f"{name}/{month}".encode(), None) for month in ("2026-10", this_month())
    ]
    asyncio.run(publish(settings.kafka_bootstrap_servers, BUDGET_STATE, gone))


def this_month() -> str:
    return f"{datetime.now(UTC):%Y-%m}"


def spillway(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result


def shown(workspace: str, *options: str) -> dict[str, Any]:
    return dict(json.loads(spillway("budget", "show", workspace, "--json", *options).stdout))


def listed(workspace: str) -> dict[str, Any] | None:
    found = json.loads(spillway("budget", "list", "--json").stdout)["budgets"]
    return next((each for each in found if each["workspace_id"] == workspace), None)


def say(settings: Settings, workspace: str, month: str, spent: str, reserved: str = "0", holders: int = 0) -> None:
    """What a worker says of a month."""
    state = BudgetState(
        workspace_id=workspace,
        month=month,
        limit=Decimal(250),
        action=BudgetAction.ALERT,
        spent=Decimal(spent),
        reserved=Decimal(reserved),
        open_requests=holders,
        at=datetime.now(UTC),
    )
    records: list[tuple[bytes | None, bytes | None]] = [(state.key.encode(), encode(state))]
    asyncio.run(publish(settings.kafka_bootstrap_servers, BUDGET_STATE, records))


def events(workspace: str) -> list[dict[str, Any]]:
    lines = spillway("tail", "budgets", "-n", "1000", "--json").stdout.splitlines()
    return [record for record in map(json.loads, lines) if record["key"] == workspace]


def test_a_budget_is_set_in_steps_shown_and_reset(workspace: str) -> None:
    assert shown(workspace)["source"] == "default"
    assert shown(workspace)["budget"] == "1000.000000000"
    said = spillway(
        *("budget", "set", workspace, "--amount", "250", "--thresholds", "50,80,100"),
        *("--action", "refuse", "--time-zone", "Europe/Vienna"),
    ).stdout
    assert said == (
        f"{workspace} now has $250.00 a month by the clock of Europe/Vienna, announced at 50, 80 and 100 %; "
        "what goes beyond it is refused.\n"
    )
    spillway("budget", "set", workspace, "--amount", "99.50")
    found = shown(workspace)
    assert {name: found[name] for name in ("budget", "thresholds", "action", "time_zone", "source", "set")} == {
        "budget": "99.500000000",
        "thresholds": [50, 80, 100],
        "action": "refuse",
        "time_zone": "Europe/Vienna",
        "source": "event",
        "set": ["amount", "thresholds", "action", "time_zone"],
    }
    newest = events(workspace)[-1]
    assert decode(BudgetChange, json.dumps(newest["value"]).encode()).amount == Decimal("99.5")
    assert ["ce_type", "ai.budget.set"] in newest["headers"]
    assert ["ce_source", f"/spillway/{workspace}"] in newest["headers"]

    said = spillway("budget", "reset", workspace).stdout
    assert said.startswith(f"{workspace} has the budget of the settings again: $1,000.00 a month by the clock of UTC")
    assert events(workspace)[-1]["value"] is None
    assert (shown(workspace)["source"], listed(workspace)) == ("default", None)


def test_thresholds_can_be_taken_away(workspace: str) -> None:
    said = spillway("budget", "set", workspace, "--thresholds", "").stdout
    assert "announced at no threshold" in said
    assert (shown(workspace)["thresholds"], shown(workspace)["set"]) == ([], ["thresholds"])
    assert "none" in spillway("budget", "show", workspace).stdout


def test_how_the_month_stands_is_shown(settings: Settings, workspace: str) -> None:
    spillway("budget", "set", workspace, "--amount", "250")
    say(settings, workspace, this_month(), "100", "10")
    say(settings, workspace, this_month(), "200", "12.5", holders=3)
    found = shown(workspace)
    assert {name: found[name] for name in ("spent", "reserved", "left", "percent", "open_requests", "month")} == {
        "spent": "200.000000000",
        "reserved": "12.500000000",
        "left": "37.500000000",
        "percent": 80.0,
        "open_requests": 3,
        "month": this_month(),
    }
    assert Decimal(found["forecast"]) >= 200
    text = spillway("budget", "show", workspace).stdout
    lines = {line.split()[0]: line.split() for line in text.splitlines()}
    assert lines[workspace] == [workspace, this_month()]
    assert lines["budget"] == ["budget", "$250.00", "set"]
    assert lines["spent"] == ["spent", "$200.00", "80", "%"]
    assert lines["reserved"] == ["reserved", "$12.50", "3", "open", "requests"]
    assert lines["left"] == ["left", "$37.50"]
    # The forecast is of the moment.
    assert {**(listed(workspace) or {}), "forecast": ""} == {**found, "forecast": ""}


def test_a_month_that_is_over_is_shown_with_what_it_was(settings: Settings, workspace: str) -> None:
    say(settings, workspace, "2026-10", "1040.25")
    found = shown(workspace, "--month", "2026-10")
    assert (found["spent"], found["forecast"], found["left"]) == ("1040.250000000", "1040.250000000", "-40.250000000")
    assert "$0, over by $40.25" in spillway("budget", "show", workspace, "--month", "2026-10").stdout
    now = listed(workspace)
    assert now is not None, "a workspace that has spent before is listed"
    assert (now["month"], now["spent"], now["source"]) == (this_month(), "0.000000000", "default")


def test_what_is_no_state_or_budget_is_left_out(settings: Settings, workspace: str) -> None:
    servers, key = settings.kafka_bootstrap_servers, f"{workspace}/{this_month()}".encode()
    asyncio.run(publish(servers, BUDGET_STATE, [(key, b"nonsense")]))
    asyncio.run(publish(servers, BUDGETS, [(workspace.encode(), b"{}")]))
    assert listed(workspace) is None
    said = spillway("budget", "show", workspace)
    assert f"No worker has said anything of {this_month()}" in said.stderr


def test_the_list_is_a_table(workspace: str) -> None:
    spillway("budget", "set", workspace, "--amount", "5", "--action", "refuse")
    lines = spillway("budget", "list").stdout.splitlines()
    assert lines[0].split()[:3] == ["WORKSPACE", "MONTH", "BUDGET"]
    [line] = [line for line in lines if line.startswith(workspace)]
    assert line.split() == [workspace, this_month(), "$5.00", "$0", "$0", "$5.00", "0", "%", "$0", "refuse", "event"]
