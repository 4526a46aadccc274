"""The ledger in ClickHouse's real engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.clickhouse.client import ClickHouse
from app.clickhouse.errors import ClickHouseError
from app.clickhouse.ledger import ClickHouseLedger
from app.clickhouse.migrate import MigrationError, known_migrations, migrate, pending
from app.clickhouse.overview import overview
from app.clickhouse.report import usage_report
from app.clickhouse.retention import ttl_of
from app.devstack import clickhouse, ports
from app.devstack.clickhouse import Login
from app.devstack.stack import DevStack
from app.settings import Settings, load_settings
from schemas.usage import Outcome, Tokens, UsageEvent
from streams.account.ports import LedgerRejectedError, LedgerUnavailableError
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(150)]

NOVEMBER = datetime(2026, 11, 5, 12, 0, tzinfo=UTC)


def usage(workspace: str, **fields: Any) -> UsageEvent:
    defaults: dict[str, Any] = {
        "request_id": unique("r"),
        "workspace_id": workspace,
        "attempt": 1,
        "provider": "claude",
        "model": "claude-sonnet-4-5",
        "purpose": "chat",
        "outcome": Outcome.SUCCEEDED,
        "tokens": Tokens(prompt_tokens=100, completion_tokens=20),
        "cost": Decimal("0.01"),
        "requested_at": NOVEMBER,
        "started_at": NOVEMBER,
        "latency": 1.0,
        "lane": "claude/0",
    }
    return UsageEvent(**{**defaults, **fields})


@pytest.fixture
async def ledger(settings: Settings) -> AsyncIterator[ClickHouseLedger]:
    ledger = ClickHouseLedger(settings)
    yield ledger
    await ledger.close()


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[ClickHouse]:
    async with ClickHouse(settings) as database:
        yield database


async def spent(ledger: ClickHouseLedger, workspace: str, month: str = "2026-11") -> Decimal:
    return (await ledger.spent([(workspace, month)]))[workspace, month]


async def test_an_attempt_is_counted_once_however_often_it_is_written(ledger: ClickHouseLedger) -> None:
    workspace = unique("w")
    event = usage(workspace)
    await ledger.write([event, event])
    await ledger.write([event])
    assert await spent(ledger, workspace) == Decimal("0.010000000")


@pytest.mark.parametrize("order", [1, -1], ids=["doubt first", "outcome first"])
async def test_a_known_outcome_replaces_a_doubt_in_either_order(ledger: ClickHouseLedger, order: int) -> None:
    workspace, request = unique("w"), unique("r")
    doubt = usage(workspace, request_id=request, outcome=Outcome.IN_DOUBT, cost="0.5", cost_source="estimated")
    known = usage(workspace, request_id=request, cost="0.02", cost_source="reported")
    for event in (doubt, known)[::order]:
        await ledger.write([event])
    assert await spent(ledger, workspace) == Decimal("0.02")


async def test_money_comes_back_to_the_nano_dollar(ledger: ClickHouseLedger) -> None:
    workspace = unique("w")
    await ledger.write([usage(workspace, cost="0.000000001"), usage(workspace, cost="999999999.999999998")])
    assert await spent(ledger, workspace) == Decimal("999999999.999999999")


async def test_a_workspace_is_only_charged_for_its_own_month(ledger: ClickHouseLedger) -> None:
    mine, other = unique("w"), unique("w")
    last = datetime(2026, 10, 31, 23, 59, 59, 999_000, tzinfo=UTC)
    first = last + timedelta(milliseconds=1)
    october, november = {"requested_at": last, "cost": "1"}, {"requested_at": first, "cost": "2"}
    await ledger.write([usage(mine, **october), usage(mine, **november, started_at=first), usage(other)])
    months = [(mine, "2026-10"), (mine, "2026-11"), (mine, "2026-12"), (other, "2026-10")]
    assert await ledger.spent(months) == dict(zip(months, (Decimal(1), Decimal(2), 0, 0), strict=True))


async def test_a_batch_may_be_of_any_number_of_months(ledger: ClickHouseLedger) -> None:
    workspace = unique("w")
    starts = [datetime(2000 + number // 12, number % 12 + 1, 3, tzinfo=UTC) for number in range(150)]
    await ledger.write([usage(workspace, requested_at=start, started_at=start) for start in starts])
    assert await spent(ledger, workspace, "2000-01") == Decimal("0.01")


@pytest.mark.parametrize(
    "impossible",
    [
        {"attempt": 2**40},
        {"cost": Decimal(10**10)},
        {"latency": float("inf")},
        {"started_at": datetime(1960, 1, 1, tzinfo=UTC)},
        {"tokens": Tokens(prompt_tokens=2**64)},
        {"user_id": "\ud800"},
    ],
    ids=lambda fields: next(iter(fields)),
)
async def test_a_row_that_cannot_be_stored_is_refused_by_name_and_stores_nothing(
    ledger: ClickHouseLedger, impossible: dict[str, Any]
) -> None:
    workspace = unique("w")
    bad = usage(workspace, **impossible)
    with pytest.raises(LedgerRejectedError, match=bad.request_id):
        await ledger.write([bad])
    with pytest.raises(LedgerRejectedError):
        await ledger.write([usage(workspace), bad])
    assert await spent(ledger, workspace) == 0


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"clickhouse_url": "http://127.0.0.1:1"}, "does not answer"),
        ({"clickhouse_password": "wrong"}, "refuses the login"),
    ],
)
async def test_a_ledger_that_cannot_be_used_says_why(settings: Settings, wrong: dict[str, str], reason: str) -> None:
    ledger = ClickHouseLedger(Settings(**{**settings.model_dump(), **wrong}))
    with pytest.raises(LedgerUnavailableError, match=reason) as raised:
        await ledger.write([usage(unique("w"))])
    assert "wrong" not in str(raised.value)
    await ledger.close()


async def test_the_ledger_comes_back_when_clickhouse_does(stack: DevStack, ledger: ClickHouseLedger) -> None:
    workspace = unique("w")
    await ledger.write([usage(workspace)])
    await asyncio.to_thread(stack.clickhouse.stop)
    with pytest.raises(LedgerUnavailableError, match=r"does not answer|has closed the connection") as raised:
        await ledger.write([usage(workspace)])
    assert "TLS" not in str(raised.value), "it has answered before"
    # In this thread: a part lives no longer than the thread that started it.
    stack.clickhouse.start()
    await asyncio.to_thread(stack.clickhouse.wait_ready, 60)
    await ledger.write([usage(workspace)])
    assert await spent(ledger, workspace) == Decimal("0.02")


async def test_the_report_adds_up_each_attempt_once(ledger: ClickHouseLedger, database: ClickHouse) -> None:
    workspace, request = unique("w"), unique("r")
    failed = usage(workspace, request_id=request, outcome=Outcome.FAILED, error_code="overloaded", cost=0, latency=9)
    second = {"request_id": request, "attempt": 2, "provider": "openai", "model": "gpt-4o-mini", "cost": "0.02"}
    doubt = usage(workspace, outcome=Outcome.IN_DOUBT, cost="0.5", cost_source="estimated", purpose=None)
    await ledger.write([failed, failed, usage(workspace, **second, latency=3.0), doubt])
    report = await usage_report(database, workspace, "2026-11")
    total = report.total
    assert (total.requests, total.attempts, total.failed_attempts, total.in_doubt_attempts) == (2, 3, 1, 1)
    assert (total.cost, total.estimated_cost, total.total_tokens) == (Decimal("0.52"), Decimal("0.5"), 360)
    assert (total.latency_p50, total.latency_p95) == (3.0, 3.0)
    assert total.error_rate == pytest.approx(1 / 3)
    assert [(line.name, line.cost) for line in report.by_provider] == [
        ("claude", Decimal("0.5")),
        ("openai", Decimal("0.02")),
    ]
    assert [line.name for line in report.by_model] == ["claude-sonnet-4-5", "gpt-4o-mini"]
    assert [(line.name, line.attempts) for line in report.by_purpose] == [("", 1), ("chat", 2)]


async def test_a_workspace_without_usage_has_an_empty_report(settings: Settings) -> None:
    report = await usage_report(settings, unique("w"), "2026-11")
    assert (report.total.attempts, report.total.latency_p95, report.by_model) == (0, None, ())


async def test_the_view_of_requests_tells_how_each_ended(ledger: ClickHouseLedger, database: ClickHouse) -> None:
    workspace = unique("w")
    await ledger.write(
        [
            usage(workspace, request_id="saved", outcome=Outcome.FAILED, error_code="overloaded"),
            usage(workspace, request_id="saved", attempt=2, provider="openai"),
            usage(workspace, request_id="lost", outcome=Outcome.FAILED, error_code="overloaded"),
            usage(workspace, request_id="lost", attempt=2, outcome=Outcome.IN_DOUBT),
        ]
    )
    found = await database.query(
        "SELECT request_id, attempts, outcome, provider, error_code, cost FROM requests "
        "WHERE workspace_id = {workspace:String} ORDER BY request_id",
        {"workspace": workspace},
    )
    assert found.rows == [
        ("lost", 2, "in_doubt", "claude", None, Decimal("0.02")),
        ("saved", 2, "succeeded", "openai", None, Decimal("0.02")),
    ]


async def test_every_field_of_an_event_is_in_the_ledger(ledger: ClickHouseLedger, database: ClickHouse) -> None:
    workspace = unique("w")
    counts = {"prompt": 9, "completion": 8, "cached": 7, "cache_write": 6, "cache_write_1h": 3, "reasoning": 5}
    tokens = Tokens(search_requests=4, **{f"{name}_tokens": count for name, count in counts.items()})
    event = usage(workspace, tokens=tokens, user_id="ann", error_code="x", kind="search", cost_source="reported")
    await ledger.write([event])
    found = await database.query(
        "SELECT * FROM ledger WHERE workspace_id = {workspace:String}", {"workspace": workspace}
    )
    row = dict(zip(found.names, found.rows[0], strict=True))
    fields = event.model_dump(exclude={"schema_version", "tokens", "requested_at", "started_at", "month", "correction"})
    told = {"budget_month": event.budget_month}
    assert {**row, **fields, **tokens.model_dump(), **told} == row
    assert row["total_tokens"] == 17
    assert row["month"] == 202611
    assert row["started_at"].replace(tzinfo=UTC) == event.started_at


async def test_the_reader_may_read_and_nothing_else(settings: Settings) -> None:
    async with ClickHouse(settings, reader=True) as reader:
        await reader.query("SELECT count() FROM ledger")
        with pytest.raises(ClickHouseError):
            await reader.command("TRUNCATE TABLE attempts")


# With an engine of their own: these drop the database.


@pytest.fixture(scope="module")
def own_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("engine")
    login = Login("secret", "reader-secret", unique("engine"))
    port = ports.choose(0, "")
    engine = clickhouse.engine(folder, port, login, folder / "engine.log")
    engine.start()
    try:
        engine.wait_ready(60)
        yield load_settings(clickhouse_url=f"http://{ports.HOST}:{port}", clickhouse_password=login.password)
    finally:
        engine.stop()


@pytest.fixture
async def empty(own_engine: Settings) -> Settings:
    """Settings of an engine that has no database yet."""
    async with ClickHouse(own_engine, use_database=False) as server:
        await server.command("DROP DATABASE IF EXISTS spillway SYNC")
    return own_engine


async def test_migrations_run_once_and_in_order(empty: Settings) -> None:
    names = [migration.name for migration in known_migrations()]
    assert [migration.name for migration in await pending(empty)] == [*names, "retention"]
    assert await migrate(empty) == [*names, "retention"]
    assert await pending(empty) == []
    assert await migrate(empty) == []


async def ttl(settings: Settings, table: str) -> str:
    async with ClickHouse(settings) as database:
        asked = "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = {table:String}"
        return ttl_of((await database.query(asked, {"table": table})).rows[0][0])


async def test_what_would_run_can_be_seen_and_changes_nothing(empty: Settings) -> None:
    shown = [statement for migration in await pending(empty) for statement in migration.statements()]
    assert any("CREATE TABLE IF NOT EXISTS attempts" in statement for statement in shown)
    assert len(await pending(empty)) == len(known_migrations()) + 1


async def test_retention_follows_its_setting(empty: Settings) -> None:
    await migrate(empty)
    assert (await ttl(empty, "attempts"), await ttl(empty, "contents")) == ("", "toDateTime(at) + toIntervalDay(30)")
    for months, expected in ((13, "toIntervalMonth(13)"), (6, "toIntervalMonth(6)")):
        told = empty.model_copy(update={"ledger_retention_months": months})
        assert await migrate(told) == ["retention"]
        assert await migrate(told) == []
        assert {expected in await ttl(empty, table) for table in ("attempts", "outcomes", "usage_hours")} == {True}
    # Whoever is told nothing undoes nothing.
    assert await migrate(empty) == []
    assert await migrate(empty.model_copy(update={"ledger_retention_months": 0})) == ["retention"]
    assert await ttl(empty, "attempts") == ""


async def test_what_is_older_than_its_retention_goes(empty: Settings) -> None:
    told = empty.model_copy(update={"ledger_retention_months": 12})
    ledger = ClickHouseLedger(told)
    now = datetime.now(UTC)
    old = now - timedelta(days=800)
    await ledger.write([usage("w", requested_at=old, started_at=old), usage("w", requested_at=now, started_at=now)])
    await ledger.close()
    async with ClickHouse(told) as database:
        await database.command("OPTIMIZE TABLE attempts FINAL")
        assert (await database.query("SELECT count() FROM attempts")).rows == [(1,)]


async def test_what_was_there_before_the_hourly_figures_is_in_them(empty: Settings) -> None:
    ledger = ClickHouseLedger(empty)
    await ledger.write([usage("w"), usage("w")])
    await ledger.close()
    fill = next(migration for migration in known_migrations() if migration.name.endswith("_hours"))
    async with ClickHouse(empty) as database:
        for statement in (*fill.statements(), *fill.statements()):
            await database.command(statement)
        assert [(line.attempts, line.cost) for line in await overview(database, "2026-11")] == [(2, Decimal("0.02"))]


async def test_two_workers_may_migrate_at_the_same_moment(empty: Settings) -> None:
    await asyncio.gather(migrate(empty), migrate(empty), migrate(empty))
    assert await pending(empty) == []


async def test_a_migration_that_was_changed_after_it_ran_is_refused(empty: Settings) -> None:
    await migrate(empty)
    first = known_migrations()[0].name
    async with ClickHouse(empty) as database:
        changed = (
            "INSERT INTO schema_migrations (name, checksum, applied_at) SELECT {name:String}, repeat('0', 64), now64()"
        )
        await database.command(changed, {"name": first})
    with pytest.raises(MigrationError, match=f"{first} was changed"):
        await migrate(empty)


async def test_the_ledger_makes_its_tables_by_itself(empty: Settings) -> None:
    ledger = ClickHouseLedger(empty)
    await ledger.write([usage("w")])
    assert await spent(ledger, "w") == Decimal("0.01")
    await ledger.close()


async def test_a_database_that_was_dropped_under_a_running_ledger_is_made_again(empty: Settings) -> None:
    ledger = ClickHouseLedger(empty)
    await ledger.write([usage("w")])
    async with ClickHouse(empty, use_database=False) as server:
        await server.command("DROP DATABASE spillway SYNC")
    with pytest.raises(LedgerUnavailableError):
        await ledger.write([usage("w")])
    await ledger.write([usage("w")])
    assert await spent(ledger, "w") == Decimal("0.01")
    await ledger.close()
