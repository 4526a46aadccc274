"""History priced again on the real broker and the real ledger."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli.main import app
from app.clickhouse.client import ClickHouse
from app.clickhouse.ledger import ClickHouseLedger
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.base import Priority
from schemas.usage import Outcome, Tokens, UsageEvent
from streams.topology import USAGE
from tests.support.reader.topics import reading
from tests.support.values.names import unique
from tests.support.values.usage import usage

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]

PRICES = """
[[prices."openai/gpt-4o"]]
input_mtok = "1"
output_mtok = "1"
[[prices."openai/gpt-4o"]]
from = 2026-11-05
input_mtok = "2"
output_mtok = "2"
"""


@pytest.fixture(autouse=True)
def price_book(stack: DevStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    file = tmp_path / "spillway.toml"
    file.write_text(PRICES)
    monkeypatch.setenv("AI_STACK_DIR", str(stack.folder))
    monkeypatch.setenv("AI_SETTINGS_FILE", str(file))
    return file


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[ClickHouse]:
    async with ClickHouse(settings) as database:
        yield database


async def reprice(workspace: str, *options: str) -> dict[str, Any]:
    period = ("--from", "2026-11-01", "--to", "2026-12-01", "-w", workspace)
    command = ["reprice", *period, "--json", *options]
    result = await asyncio.to_thread(CliRunner().invoke, app, command)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@asynccontextmanager
async def sink(settings: Settings, workspace: str) -> AsyncIterator[list[UsageEvent]]:
    """Brings a workspace's usage into the ledger as a worker does; yields what has come."""
    ledger, seen = ClickHouseLedger(settings), list[UsageEvent]()

    async with reading(settings.kafka_bootstrap_servers, USAGE) as consumer:

        async def work() -> None:
            async for record in consumer:
                if record.key == workspace.encode():
                    seen.append(UsageEvent.model_validate_json(record.value))
                    await ledger.write(seen[-1:])

        working = asyncio.create_task(work())
        await consumer.position(next(iter(consumer.assignment())))
        yield seen
        working.cancel()
    await ledger.close()


async def costs(database: ClickHouse, workspace: str) -> dict[str, tuple[Decimal, str]]:
    sql = "SELECT request_id, cost, toString(cost_source) FROM ledger WHERE workspace_id = {w:String}"
    return {row[0]: (row[1], row[2]) for row in (await database.query(sql, {"w": workspace})).rows}


async def history(database: ClickHouse, workspace: str) -> list[tuple[Any, ...]]:
    sql = (
        "SELECT request_id, previous_cost, cost, original_cost, corrected_by, reason, run FROM corrections FINAL "
        "WHERE workspace_id = {w:String} ORDER BY corrected_at"
    )
    return (await database.query(sql, {"w": workspace})).rows


async def test_corrections_are_later_versions_with_a_history_and_nothing_undoes_them(
    settings: Settings, database: ClickHouse, price_book: Path
) -> None:
    workspace = unique("w")
    old = usage(workspace, request_id="old", started_at=datetime(2026, 11, 4, 23, 59, 59, tzinfo=UTC), cost="0.5")
    new = usage(workspace, request_id="new", cost="0.5", priority=Priority.BATCH)
    doubt = usage(workspace, request_id="doubt", cost="9", cost_source="estimated", outcome=Outcome.IN_DOUBT)
    told = usage(workspace, request_id="told", cost="7", cost_source="reported")
    failed = usage(workspace, request_id="failed", cost="0", outcome=Outcome.FAILED, tokens=Tokens())
    ledger = ClickHouseLedger(settings)
    everything = [old, new, doubt, told, failed]
    await ledger.write(everything)

    dry = await reprice(workspace, "--dry-run")
    assert dry["total"] == {
        "attempts": 5,
        "changed": 3,
        "old": "17.000000000",
        "new": "7.000600000",
        "difference": "-9.999400000",
    }
    assert await history(database, workspace) == []

    async with sink(settings, workspace) as published:
        first = await reprice(workspace, "--by", "ann", "--reason", "wrong list")
        assert {event.request_id: event.priority for event in published} == {
            "old": None,
            "new": Priority.BATCH,
            "doubt": None,
        }
        await ledger.write(everything)  # The old records are delivered again.
        right = {
            "old": (Decimal("0.00012"), "computed"),
            "new": (Decimal("0.00024"), "computed"),
            "doubt": (Decimal("0.00024"), "estimated"),
            "told": (Decimal(7), "reported"),
            "failed": (Decimal(0), "computed"),
        }
        assert await costs(database, workspace) == right
        assert {row[:6] for row in await history(database, workspace)} == {
            ("old", Decimal("0.5"), Decimal("0.00012"), Decimal("0.5"), "ann", "wrong list"),
            ("new", Decimal("0.5"), Decimal("0.00024"), Decimal("0.5"), "ann", "wrong list"),
            ("doubt", Decimal(9), Decimal("0.00024"), Decimal(9), "ann", "wrong list"),
        }
        assert {row[6] for row in await history(database, workspace)} == {first["run"]}

        again = await reprice(workspace)
        assert (again["total"]["changed"], len(published)) == (0, 3)

        await asyncio.to_thread(price_book.write_text, PRICES.replace('"2"', '"3"'))
        second = await reprice(workspace, "--reported")
        assert second["total"]["changed"] == 3
        await ledger.write([*everything, *published[:3]])
        assert (await costs(database, workspace))["new"] == (Decimal("0.00036"), "computed")
        assert (await costs(database, workspace))["told"] == (Decimal("0.00036"), "computed")
        chain = [row[1:4] for row in await history(database, workspace) if row[0] == "new"]
        assert chain == [
            (Decimal("0.5"), Decimal("0.00024"), Decimal("0.5")),
            (Decimal("0.00024"), Decimal("0.00036"), Decimal("0.5")),
        ]
        # What is learned later of an attempt in doubt is better than any price for the doubt.
        await ledger.write([usage(workspace, request_id="doubt", cost="0.1")])
        assert (await costs(database, workspace))["doubt"] == (Decimal("0.1"), "computed")
    await ledger.close()


async def test_only_what_is_asked_for_is_priced_again(settings: Settings, database: ClickHouse) -> None:
    workspace = unique("w")
    ledger = ClickHouseLedger(settings)
    await ledger.write([usage(workspace), usage(workspace, model="gpt-4o-mini"), usage(unique("other"))])
    await ledger.close()
    found = await reprice(workspace, "--dry-run", "--provider", "openai", "--model", "gpt-4o")
    assert [(line["model"], line["attempts"]) for line in found["lines"]] == [("gpt-4o", 1)]
    found = await reprice(workspace, "--dry-run", "--provider", "claude")
    assert found["lines"] == []
    assert await history(database, workspace) == []


def test_a_table_for_people_says_what_would_change(settings: Settings) -> None:
    workspace = unique("w")

    async def write() -> None:
        ledger = ClickHouseLedger(settings)
        await ledger.write([usage(workspace, cost="0.5"), usage(workspace, cost="7", cost_source="reported")])
        await ledger.close()

    asyncio.run(write())
    command = ["reprice", "--from", "2026-11-01", "--to", "2026-12-01", "-w", workspace, "--dry-run"]
    shown = CliRunner().invoke(app, command).stdout
    assert "$7.500000000  $7.000240000  -$0.499760000" in shown
    assert "Left alone: 1 attempt ($7.00): the provider has reported the cost itself; --reported replaces it." in shown
    assert "1 attempt would be corrected; nothing was written." in shown
