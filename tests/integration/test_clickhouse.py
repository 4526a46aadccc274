"""The ledger in ClickHouse's real engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.clickhouse.client import ClickHouse
from app.clickhouse.errors import ClickHouseError
from app.clickhouse.ledger import ClickHouseLedger
from app.clickhouse.migrate import MigrationError, known_migrations, migrate, pending
from app.clickhouse.report import Period, usage_report
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.usage import Outcome, Tokens, UsageEvent
from streams.account.ports import LedgerRejectedError, LedgerUnavailableError
from tests.support.names import unique
from tests.support.waiting import eventually

pytestmark = [pytest.mark.stack, pytest.mark.timeout(60)]

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
    await ledger.write([usage(mine, started_at=last, cost="1"), usage(mine, started_at=first, cost="2"), usage(other)])
    months = [(mine, "2026-10"), (mine, "2026-11"), (mine, "2026-12"), (other, "2026-10")]
    assert await ledger.spent(months) == dict(zip(months, (Decimal(1), Decimal(2), 0, 0), strict=True))


async def test_a_batch_may_be_of_any_number_of_months(ledger: ClickHouseLedger) -> None:
    workspace = unique("w")
    starts = [datetime(2000 + number // 12, number % 12 + 1, 3, tzinfo=UTC) for number in range(150)]
    await ledger.write([usage(workspace, started_at=start) for start in starts])
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
    with pytest.raises(LedgerUnavailableError, match="does not answer"):
        await ledger.write([usage(workspace)])
    # In this thread: a part lives no longer than the thread that started it.
    stack.clickhouse.start()
    await asyncio.to_thread(stack.clickhouse.wait_ready, 30)
    await ledger.write([usage(workspace)])
    assert await spent(ledger, workspace) == Decimal("0.02")


async def test_a_database_that_was_dropped_under_a_running_ledger_is_made_again(settings: Settings) -> None:
    own = own_database(settings)
    ledger = ClickHouseLedger(own)
    async with ClickHouse(own, use_database=False) as server:
        try:
            await ledger.write([usage("w")])
            await server.command(f"DROP DATABASE {own.clickhouse_database} SYNC")
            with pytest.raises(LedgerUnavailableError):
                await ledger.write([usage("w")])
            await ledger.write([usage("w")])
            assert await spent(ledger, "w") == Decimal("0.01")
        except ClickHouseError as error:
            pytest.skip(f"the stack's user may not do this: {error}")
        finally:
            await ledger.close()


def own_database(settings: Settings) -> Settings:
    return settings.model_copy(update={"clickhouse_database": unique("test").replace("-", "_")})
