"""The ledger read by clients that nobody here wrote, as the reading user, who can do nothing else."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from app.clickhouse.client import ClickHouse
from app.clickhouse.ledger import ClickHouseLedger
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.usage import Outcome, Tokens, UsageEvent
from streams.account.agent import hour_of
from streams.account.announced import Announced
from streams.account.answered import Answered, AnsweredUsage
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(150)]

DOCS = Path(__file__).parents[2] / "docs" / "analytics.md"
QUERIES = re.findall(r"^```sql\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
NOON = datetime(2026, 11, 5, 12, 0, tzinfo=UTC)

#: A client: a statement in, what the server answered out.
Client = Callable[[str], str]


def login(settings: Settings) -> tuple[str, str]:
    """The reader's name and password."""
    password = settings.clickhouse_reader_password
    assert password is not None
    return settings.clickhouse_reader_user, password.get_secret_value()


def by_httpx(settings: Settings) -> Client:
    user, password = login(settings)
    told = {"X-ClickHouse-User": user, "X-ClickHouse-Key": password}

    def ask(statement: str) -> str:
        asked = {"database": settings.clickhouse_database}
        return httpx.post(settings.clickhouse_url, params=asked, headers=told, content=statement, timeout=30).text

    return ask


def by_curl(settings: Settings) -> Client:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    told = ":".join(login(settings))
    address = f"{settings.clickhouse_url}/?database={settings.clickhouse_database}"

    def ask(statement: str) -> str:
        command = [curl, "--silent", "--user", told, "--data-binary", "@-", address]
        return subprocess.run(command, input=statement, capture_output=True, text=True, check=True).stdout

    return ask


@pytest.fixture(params=[by_httpx, by_curl], ids=["httpx", "curl"])
def ask(request: pytest.FixtureRequest, settings: Settings) -> Client:
    client: Client = request.param(settings)
    return client


@pytest.fixture
async def acme(settings: Settings) -> AsyncIterator[str]:
    """Something of everything that the documented queries ask for."""
    ledger = ClickHouseLedger(settings)
    common = {"workspace_id": "acme", "kind": "completion", "purpose": "chat", "user_id": "ann", "month": "2026-11"}
    call = {"provider": "claude", "model": "m", "requested_at": NOON, "started_at": NOON, "latency": 1.0, **common}
    tokens = Tokens(prompt_tokens=10, completion_tokens=5)
    failed = UsageEvent(request_id="a", attempt=1, outcome=Outcome.FAILED, error_code="overloaded", **call)
    answered = UsageEvent(request_id="a", attempt=2, outcome=Outcome.SUCCEEDED, tokens=tokens, cost="0.5", **call)
    doubt = UsageEvent(request_id="b", attempt=1, outcome=Outcome.IN_DOUBT, cost="1", cost_source="estimated", **call)
    await ledger.write([failed, answered, doubt])
    await ledger.recount_attempts({("acme", hour_of(NOON))})
    used = AnsweredUsage(prompt_tokens=10, completion_tokens=5, cost="0.5")
    answer = {"status": "succeeded", "provider": "claude", "model": "m", "usage": used, "answered_at": NOON, **common}
    await ledger.write_outcomes([Answered(request_id=name, requested_at=NOON, **answer) for name in ("a", "c")])
    alert = {"kind": "ai.budget.alert", "month": "2026-11", "threshold": 50, "spent": "6", "budget": "10"}
    await ledger.write_alerts([Announced(workspace_id="acme", event_id="acme/1", observed_at=NOON, **alert)])
    yield "acme"
    await ledger.close()


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: " ".join(query.split())[:60])
async def test_every_documented_query_answers_for_the_reader(settings: Settings, acme: str, query: str) -> None:
    assert acme in query or "workspace_id" in query or "started_at" in query
    async with ClickHouse(settings, reader=True) as reader:
        found = await reader.query(query)
    assert found.rows
    assert len(set(found.names)) == len(found.names)


def test_there_are_documented_queries() -> None:
    assert len(QUERIES) > 10


async def test_any_client_reads_the_ledger_exactly(ask: Client, acme: str) -> None:
    text = ask(
        f"SELECT request_id, attempt, outcome, cost FROM ledger WHERE workspace_id = '{acme}' "  # noqa: S608
        "ORDER BY request_id, attempt FORMAT CSVWithNames"
    )
    assert list(csv.reader(io.StringIO(text))) == [
        ["request_id", "attempt", "outcome", "cost"],
        ["a", "1", "failed", "0"],
        ["a", "2", "succeeded", "0.5"],
        ["b", "1", "in_doubt", "1"],
    ]


FORBIDDEN = {
    "insert": "INSERT INTO attempts (workspace_id) VALUES ('x')",
    "insert from a select": "INSERT INTO outcomes SELECT * FROM outcomes",
    "update": "ALTER TABLE attempts UPDATE cost = 0 WHERE 1",
    "delete": "ALTER TABLE attempts DELETE WHERE 1",
    "lightweight delete": "DELETE FROM attempts WHERE 1",
    "drop a partition": "ALTER TABLE attempts DROP PARTITION 202611",
    "change the retention": "ALTER TABLE attempts MODIFY TTL toDateTime(started_at) + INTERVAL 1 DAY",
    "drop a table": "DROP TABLE attempts",
    "drop a view": "DROP VIEW ledger",
    "truncate": "TRUNCATE TABLE attempts",
    "merge": "OPTIMIZE TABLE attempts FINAL",
    "create a table": "CREATE TABLE mine (a Int8) ENGINE = Memory",
    "create a temporary table": "CREATE TEMPORARY TABLE mine (a Int8)",
    "create a view": "CREATE VIEW mine AS SELECT 1",
    "create a database": "CREATE DATABASE mine",
    "create a function": "CREATE FUNCTION mine AS x -> x",
    "create a user": "CREATE USER mine",
    "pass its rights on": "GRANT SELECT ON spillway.* TO spillway",
    "stop the merges": "SYSTEM STOP MERGES attempts",
    "stop the server": "SYSTEM SHUTDOWN",
    "end another's query": "KILL QUERY WHERE 1",
    "back up": "BACKUP TABLE attempts TO File('mine')",
    "change a setting": "SELECT 1 SETTINGS max_execution_time = 0",
    "see others' queries": "SELECT query FROM system.processes",
    "see users": "SELECT name FROM system.users",
    "see rights": "SELECT * FROM system.grants",
    "see parts": "SELECT name FROM system.parts",
    "read a file": "SELECT * FROM file('/etc/passwd', 'LineAsString', 'line String')",
    "read an address": "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString', 'line String')",
    "read another server": "SELECT * FROM remote('127.0.0.1:1', 'system.one')",
    "run a program": "SELECT * FROM executable('ls', 'CSV', 'a String')",
    "write a file": "SELECT 1 INTO OUTFILE '/tmp/mine'",
    "read what was asked and answered": "SELECT text FROM contents",
}


@pytest.mark.parametrize("statement", FORBIDDEN.values(), ids=FORBIDDEN)
def test_the_reader_can_do_nothing_else(ask: Client, statement: str) -> None:
    assert re.match(r"Code: (497|164|358)\. DB::Exception: ", ask(statement)), ask(statement)


def test_the_reader_sees_no_other_database_and_no_table_of_another(ask: Client) -> None:
    assert ask("SELECT name FROM system.databases").split() == ["spillway"]
    assert ask("SELECT DISTINCT database FROM system.tables WHERE database != 'system'").split() == ["spillway"]


def test_without_its_password_the_reader_reads_nothing(settings: Settings, stack: DevStack) -> None:
    assert stack.clickhouse.alive()
    address = f"{settings.clickhouse_url}/?user={settings.clickhouse_reader_user}&password={unique('wrong')}"
    refused = httpx.post(address, content="SELECT 1", timeout=30)
    assert refused.status_code in (401, 403, 500)
    assert "Authentication failed" in refused.text
