"""The commands against a real broker and ClickHouse, without a worker."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli.main import app
from app.clickhouse.ledger import ClickHouseLedger
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.usage import UsageEvent
from streams.account.agent import hour_of
from tests.support.clock.months import in_one_month
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def found_by_its_folder(stack: DevStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands are told nothing but where the stack lives."""
    monkeypatch.setenv("AI_STACK_DIR", str(stack.folder))


def spillway(*arguments: str, text: bytes | None = None, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments), input=text)
    assert result.exit_code == code, result.output
    return result


def charge(settings: Settings, workspace: str) -> None:
    """An attempt of this month, which is the month of the test's reports."""
    asyncio.run(in_one_month(40))
    event = UsageEvent(
        request_id=unique("r"),
        workspace_id=workspace,
        attempt=1,
        provider="claude",
        model="claude-sonnet-4-5",
        outcome="succeeded",
        cost="0.25",
        requested_at=datetime.now(UTC),
        started_at=datetime.now(UTC),
    )

    async def write() -> None:
        ledger = ClickHouseLedger(settings)
        await ledger.write([event])
        await ledger.recount_attempts({(workspace, hour_of(event.started_at))})
        await ledger.close()

    asyncio.run(write())


def test_the_running_stack_is_found_and_its_topics_are_well() -> None:
    report = json.loads(spillway("topics", "--check", "--json").stdout)
    assert report["ok"]
    assert {topic["state"] for topic in report["topics"]} == {"ok"}


def test_missing_topics_fail_the_check_and_are_not_created(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_KAFKA_APPLICATION_ID", unique("app"))
    for _ in range(2):
        report = json.loads(spillway("topics", "--check", "--json", code=1).stdout)
        assert [topic["state"] for topic in report["topics"]].count("missing") == 4


def test_lines_are_published_byte_for_byte_and_tailed(tmp_path: Path) -> None:
    workspace = unique("w")
    lines = [b'{"workspace_id":"%s",  "prompt":"hi"}' % workspace.encode(), b"no json at all", b""]
    file = tmp_path / "requests.jsonl"
    file.write_bytes(b"\n".join(lines))
    summary = json.loads(spillway("publish", str(file), "--json").stdout)
    assert (summary["published"], summary["refused"]) == (2, [])

    records = [json.loads(line) for line in spillway("tail", "requests", "-n", "50", "--json").stdout.splitlines()]
    mine = [record for record in records if record["key"] == workspace]
    assert [record["value"] for record in mine] == [{"workspace_id": workspace, "prompt": "hi"}]
    assert mine[0]["headers"][0][0] == "ce_id"
    assert any(record["value"] == "no json at all" for record in records)
    assert f"key {workspace}" in spillway("tail", "requests", "-n", "50").stdout


def test_what_is_too_large_for_a_record_is_told_by_its_line() -> None:
    lines = b'{"prompt": "hi"}\n{"prompt": "' + b"x" * 5_000_000 + b'"}\n'
    result = spillway("publish", "-", text=lines, code=1)
    assert "line 2: not published" in result.stderr
    assert "Published 1 request in" in result.stdout


def test_without_a_worker_nothing_answers_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cli.ask.GRACE", 0.2)
    result = spillway("ask", "hi", "--timeout", "0.2", code=1)
    assert result.stderr.startswith("Error: No answer came within 0.4 seconds; is a worker running?")
    result = spillway("publish", "-", "--wait", "--timeout", "0.3", text=b'{"prompt": "hi"}', code=1)
    assert "1 request got no response in time" in result.stderr


def test_an_unknown_topic_is_one_sentence() -> None:
    assert spillway("tail", "nonsense", code=1).stderr.startswith("Error: The topic nonsense does not exist")


def test_a_report_shows_the_month(settings: Settings) -> None:
    workspace = unique("w")
    charge(settings, workspace)
    found = json.loads(spillway("report", workspace, "--json").stdout)
    assert (found["total"]["cost"], found["total"]["error_rate"]) == ("0.250000000", 0.0)
    shown = spillway("report", workspace).stdout
    assert "claude-sonnet-4-5" in shown
    assert "$0.2500" in shown
    assert "No usage." in spillway("report", unique("w")).stdout


def test_a_report_as_csv_has_a_line_for_each_part(settings: Settings) -> None:
    workspace = unique("w")
    charge(settings, workspace)
    lines = list(csv.DictReader(io.StringIO(spillway("report", workspace, "--csv").stdout)))
    assert [line["dimension"] for line in lines] == ["provider", "model", "purpose", "user", "day", "total"]
    assert {line["cost"] for line in lines} == {"0.250000000"}
    assert lines[0]["name"] == "claude"
    assert lines[0]["latency_p50"] == "0.0"


def test_a_report_of_all_workspaces_has_a_line_for_each(settings: Settings) -> None:
    mine = {unique("w"), unique("w")}
    for workspace in mine:
        charge(settings, workspace)
    found = {line["workspace_id"]: line for line in json.loads(spillway("report", "--all", "--json").stdout)}
    assert {found[workspace]["cost"] for workspace in mine} == {"0.250000000"}
    shown = spillway("report").stdout
    assert mine <= set(shown.split())
    rows = list(csv.DictReader(io.StringIO(spillway("report", "--all", "--csv").stdout)))
    assert mine <= {row["workspace_id"] for row in rows}
    assert spillway("report", "--all", "--month", "2020-01").stdout.endswith("No usage.\n")


def test_a_report_is_of_one_workspace_or_of_all() -> None:
    assert "not both" in spillway("report", "w", "--all", code=2).output


def test_migrations_can_be_shown_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Nothing" in spillway("migrate", "--show").stdout
    monkeypatch.setenv("AI_LEDGER_RETENTION_MONTHS", "600")
    for _ in range(2):
        shown = spillway("migrate", "--show").stdout
        assert "ALTER TABLE attempts MODIFY TTL toDateTime(started_at) + toIntervalMonth(600);" in shown
    assert "retention is pending" in spillway("migrate", "--check", code=1).stdout


@pytest.mark.parametrize("reader", [True, False], ids=["as the reader", "as the application"])
def test_sql_reads_and_never_writes(
    settings: Settings, stack: DevStack, monkeypatch: pytest.MonkeyPatch, *, reader: bool
) -> None:
    if not reader:
        without = {name: value for name, value in stack.environment().items() if "READER" not in name}
        monkeypatch.setattr("app.cli.context.running_stack", lambda: without)
    workspace = unique("w")
    charge(settings, workspace)
    query = f"SELECT workspace_id, cost, purpose FROM ledger WHERE workspace_id = '{workspace}';"  # noqa: S608
    assert json.loads(spillway("sql", query, "--json").stdout) == [
        {"workspace_id": workspace, "cost": 0.25, "purpose": None}
    ]
    assert spillway("sql", query, "--csv").stdout.splitlines()[0] == '"workspace_id","cost","purpose"'
    header, row = spillway("sql", "-", text=query.encode()).stdout.splitlines()
    assert header.split() == ["workspace_id", "cost", "purpose"]
    assert row.split()[:2] == [workspace, "0.25"]
    for forbidden in (
        "TRUNCATE TABLE attempts",
        "INSERT INTO attempts (workspace_id) VALUES ('x')",
        "DROP VIEW ledger",
    ):
        assert spillway("sql", forbidden, code=1).stderr.startswith("Error: ")
    assert "Unknown" in spillway("sql", "SELECT nothing FROM ledger", code=1).stderr
    assert json.loads(spillway("sql", query, "--json").stdout)


def test_the_tables_are_up_to_date() -> None:
    assert spillway("migrate", "--check").stdout == "The ledger is up to date.\n"
