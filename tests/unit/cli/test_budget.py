"""What `spillway budget` refuses, and what it says of a standing."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.budget import left
from app.cli.main import app
from app.cli.standing import all_standings, book_of, in_words, standing, states_of, told
from schemas.budget import BudgetAction, BudgetChange, BudgetState
from schemas.codec import encode
from streams.budgets import Budget

DEFAULT = Budget(Decimal(100))
NOW = datetime(2026, 11, 30, 23, 30, tzinfo=UTC)


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CliRunner:
    """No stack runs here, and nothing answers."""
    monkeypatch.setenv("AI_STACK_DIR", str(tmp_path))
    monkeypatch.setenv("AI_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("NO_COLOR", "1")
    return CliRunner()


@pytest.mark.parametrize(
    ("arguments", "option", "reason"),
    [
        (["set", "acme"], "", "Give at least one of --amount, --thresholds, --action and --time-zone."),
        (["set", "acme", "--amount", "much"], "--amount", "valid decimal"),
        (["set", "acme", "--amount", "0"], "--amount", "greater than 0"),
        (["set", "acme", "--thresholds", "50,a"], "--thresholds", "valid integer"),
        (["set", "acme", "--thresholds", "0"], "--thresholds", "greater than or equal to 1"),
        (["set", "acme", "--action", "explode"], "--action", "'alert' or 'refuse'"),
        (["set", "acme", "--time-zone", "Mars/Olympus"], "--time-zone", "no time zone like"),
        (["show", "acme", "--month", "November"], "--month", "no month like"),
        (["list", "--month", "2026-13"], "--month", "no month like"),
        (["show", "acme", "--month", "0000-01"], "--month", "no month like"),
        (["show", "acme", "--month", "9999-12"], "--month", "no month like"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_option(
    runner: CliRunner, arguments: list[str], option: str, reason: str
) -> None:
    result = runner.invoke(app, ["budget", *arguments])
    assert result.exit_code == 2
    said = " ".join(result.stderr.replace("│", " ").split())
    assert option in said
    assert reason in said


@pytest.mark.parametrize("command", [["set", "a b", "--amount", "1"], ["show", "a/b"], ["reset", ""]])
def test_what_cannot_be_a_workspace_is_refused(runner: CliRunner, command: list[str]) -> None:
    result = runner.invoke(app, ["budget", *command])
    assert result.exit_code == 1
    assert "cannot be a workspace" in result.stderr


@pytest.mark.parametrize("command", [["set", "acme", "--amount", "1"], ["show", "acme"], ["list"], ["reset", "acme"]])
def test_a_broker_that_is_away_is_one_sentence(runner: CliRunner, command: list[str]) -> None:
    result = runner.invoke(app, ["budget", *command])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: Kafka at 127.0.0.1:1 does not answer")
    assert result.stderr.count("\n") == 1


def state(workspace: str, month: str, spent: str) -> BudgetState:
    return BudgetState(
        workspace_id=workspace,
        month=month,
        limit=Decimal(100),
        action=BudgetAction.ALERT,
        spent=Decimal(spent),
        reserved=Decimal(0),
        open_requests=0,
        at=NOW,
    )


def test_each_workspace_is_shown_in_the_month_of_its_own_clock() -> None:
    change = BudgetChange(workspace_id="vienna", time_zone="Europe/Vienna")
    book = book_of(DEFAULT, {"vienna": encode(change)})
    known = [state("utc", "2026-11", "7"), state("vienna", "2026-11", "8"), state("vienna", "2026-12", "9")]
    states = states_of({each.key: encode(each) for each in known})
    found = {each.workspace_id: (each.month, each.spent) for each in all_standings(book, states, None, NOW)}
    assert found == {"utc": ("2026-11", Decimal(7)), "vienna": ("2026-12", Decimal(9))}
    before = {each.workspace_id: each.spent for each in all_standings(book, states, "2026-11", NOW)}
    assert before == {"utc": 7, "vienna": 8}


def test_a_state_under_another_key_is_none() -> None:
    assert states_of({"other/2026-11": encode(state("acme", "2026-11", "7"))}) == {}


def test_a_workspace_of_which_nothing_is_known_has_the_default_and_spent_nothing() -> None:
    found = standing(book_of(DEFAULT, {}), {}, "acme", None, NOW)
    assert (found.budget, found.source) == (DEFAULT, "default")
    assert (found.spent, found.left, found.percent) == (Decimal(0), Decimal(100), 0.0)
    assert left(found) == "$100.00"


def test_a_budget_in_words() -> None:
    assert told(Budget(Decimal(5), (100,), BudgetAction.REFUSE), "$5.00") == (
        "$5.00 a month by the clock of UTC, announced at 100 %; what goes beyond it is refused"
    )
    assert in_words(["50", "80", "100"]) == "50, 80 and 100"
