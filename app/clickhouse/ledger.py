"""The sinks' ledger in ClickHouse: rows in batches, each counted once however often it is written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from decimal import Decimal
from typing import TypeVar

from app.clickhouse.client import ClickHouse
from app.clickhouse.errors import BAD_VALUE, UNKNOWN_DATABASE, UNKNOWN_TABLE, ClickHouseError
from app.clickhouse.hours import MOST_WORKSPACES, OUTCOME_HOURS, USAGE_HOURS, recount
from app.clickhouse.migrate import MigrationError, migrate
from app.clickhouse.months import around
from app.clickhouse.rows import ALERTS, ATTEMPTS, CONTENTS, OUTCOMES
from app.clickhouse.shape import Shape
from app.settings import Settings
from schemas.money import usd
from schemas.usage import UsageEvent
from streams.account.announced import Announced
from streams.account.answered import Answered
from streams.account.content import Content
from streams.account.ports import LedgerRejectedError, LedgerUnavailableError, WorkspaceHour, WorkspaceMonth

R = TypeVar("R")
T = TypeVar("T")

#: Rows may be of any number of months: a replay of old records must not be refused for that.
_INSERT_SETTINGS = {"max_partitions_per_insert_block": 0}

#: FINAL leaves the best repeat of each attempt. A repeat is always in its attempt's month, so partitions need not be
#: merged with each other. `started_at` is there to pass over the partitions that cannot have any.
_SPENT = """
SELECT workspace_id, budget_month, sum(cost)
FROM attempts FINAL
WHERE workspace_id IN {workspaces:Array(String)} AND budget_month IN {months:Array(String)}
  AND started_at >= {start:DateTime64(3, 'UTC')} AND started_at < {end:DateTime64(3, 'UTC')}
GROUP BY workspace_id, budget_month
SETTINGS do_not_merge_across_partitions_select_final = 1
"""


class ClickHouseLedger:
    """Implements streams.account.ports.Ledger. Brings its tables up to date before it first uses them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = ClickHouse(settings)
        self._migrated = False
        self._migrating = asyncio.Lock()

    async def write(self, batch: Sequence[UsageEvent]) -> None:
        """Store the batch durably, all of it or (in the rare batch of several months) month by month.

        Raises LedgerUnavailableError when it is worth trying again, LedgerRejectedError when one of the rows can never
        be stored; then none of the batch should be taken as stored.
        """
        await self.insert(ATTEMPTS, batch)

    async def write_outcomes(self, batch: Sequence[Answered]) -> None:
        """The same for outcomes."""
        await self.insert(OUTCOMES, batch)

    async def write_alerts(self, batch: Sequence[Announced]) -> None:
        """The same for alerts."""
        await self.insert(ALERTS, batch)

    async def write_contents(self, batch: Sequence[Content]) -> None:
        """The same for prompts and answers, where a setting says that they are kept."""
        await self.insert(CONTENTS, batch)

    async def recount_attempts(self, hours: Collection[WorkspaceHour]) -> None:
        """Bring `usage_hours` up to what the attempts say. Whoever writes attempts calls this afterwards."""
        await self.ask(lambda: recount(self._database, USAGE_HOURS, hours))

    async def recount_outcomes(self, hours: Collection[WorkspaceHour]) -> None:
        """The same for `outcome_hours`."""
        await self.ask(lambda: recount(self._database, OUTCOME_HOURS, hours))

    async def spent(self, months: Collection[WorkspaceMonth]) -> dict[WorkspaceMonth, Decimal]:
        """Cost so far in US dollars of each workspace and budget month asked for; zero where nothing is known.

        Raises LedgerUnavailableError.
        """
        workspaces = sorted({workspace for workspace, _ in months})
        found: dict[WorkspaceMonth, Decimal] = {}
        for begin in range(0, len(workspaces), MOST_WORKSPACES):
            part = set(workspaces[begin : begin + MOST_WORKSPACES])
            found |= await self._spent_by([key for key in months if key[0] in part])
        return {key: usd(found.get(key, 0)) for key in months}

    async def _spent_by(self, months: Sequence[WorkspaceMonth]) -> dict[WorkspaceMonth, Decimal]:
        start, end = around({month for _, month in months})
        wanted = {
            "workspaces": sorted({workspace for workspace, _ in months}),
            "months": sorted({month for _, month in months}),
            "start": start,
            "end": end,
        }
        result = await self.ask(lambda: self._database.query(_SPENT, wanted))
        return {(workspace, month): cost for workspace, month, cost in result.rows}

    async def close(self) -> None:
        await self._database.close()

    async def insert(self, shape: Shape[R], batch: Sequence[R]) -> None:
        """Store the rows of one table durably. Raises LedgerUnavailableError, or LedgerRejectedError for their data."""
        if not batch:
            return
        for row in batch:
            reason = shape.refusal(row)
            if reason is not None:
                raise LedgerRejectedError(f"The ledger cannot hold {shape.label(row)}: {reason}.")
        try:
            await self._ensure_migrated()
            columns = shape.turned(batch)
            await self._database.insert(shape.table, columns, shape.names, shape.types, **_INSERT_SETTINGS)
        except UnicodeEncodeError:
            raise LedgerRejectedError(_name(shape, batch, "a text in it is not valid Unicode.")) from None
        except ClickHouseError as error:
            if error.code in BAD_VALUE:
                raise LedgerRejectedError(_name(shape, batch, str(error))) from None
            raise self._unavailable(error) from None

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """What the database answers. Raises LedgerUnavailableError."""
        try:
            await self._ensure_migrated()
            return await question()
        except ClickHouseError as error:
            raise self._unavailable(error) from None

    async def _ensure_migrated(self) -> None:
        async with self._migrating:
            if self._migrated:
                return
            try:
                await migrate(self._settings)
            except MigrationError as error:
                raise LedgerUnavailableError(str(error)) from None
            self._migrated = True

    def _unavailable(self, error: ClickHouseError) -> LedgerUnavailableError:
        if error.code in (UNKNOWN_TABLE, UNKNOWN_DATABASE):
            # Somebody replaced the database under a running worker: make the tables again before the next try.
            self._migrated = False
        return LedgerUnavailableError(str(error))


def _name(shape: Shape[R], batch: Sequence[R], reason: str) -> str:
    if len(batch) == 1:
        return f"The ledger refused {shape.label(batch[0])}: {reason}"
    return f"The ledger refused one of {len(batch)} rows: {reason}"
