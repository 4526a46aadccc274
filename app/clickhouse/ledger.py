"""The sink's ledger in ClickHouse: rows in batches, each attempt counted once however often it is written."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from decimal import Decimal

from app.clickhouse.client import ClickHouse
from app.clickhouse.errors import BAD_VALUE, UNKNOWN_DATABASE, UNKNOWN_TABLE, ClickHouseError
from app.clickhouse.migrate import MigrationError, migrate
from app.clickhouse.rows import NAMES, TYPES, columns, refusal
from app.settings import Settings
from schemas.money import usd
from schemas.usage import UsageEvent
from streams.account.ports import LedgerRejectedError, LedgerUnavailableError, WorkspaceMonth

#: Rows may be of any number of months: a replay of old records must not be refused for that.
_INSERT_SETTINGS = {"max_partitions_per_insert_block": 0}

#: FINAL leaves the best repeat of each attempt. A repeat is always in its attempt's month, so partitions need not be
#: merged with each other.
_SPENT = """
SELECT workspace_id, toYYYYMM(started_at) AS month, sum(cost)
FROM attempts FINAL
WHERE workspace_id IN {workspaces:Array(String)} AND toYYYYMM(started_at) IN {months:Array(UInt32)}
GROUP BY workspace_id, month
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
        if not batch:
            return
        _refuse_impossible(batch)
        try:
            await self._ensure_migrated()
            await self._database.insert("attempts", columns(batch), NAMES, TYPES, **_INSERT_SETTINGS)
        except UnicodeEncodeError:
            raise LedgerRejectedError(_name(batch, "a text in it is not valid Unicode.")) from None
        except ClickHouseError as error:
            if error.code in BAD_VALUE:
                raise LedgerRejectedError(_name(batch, str(error))) from None
            raise self._unavailable(error) from None

    async def spent(self, months: Collection[WorkspaceMonth]) -> dict[WorkspaceMonth, Decimal]:
        """Cost so far in US dollars of each workspace and month asked for; zero where nothing is known.

        Raises LedgerUnavailableError.
        """
        if not months:
            return {}
        wanted = {
            "workspaces": sorted({workspace for workspace, _ in months}),
            "months": sorted({_month_number(month) for _, month in months}),
        }
        try:
            await self._ensure_migrated()
            result = await self._database.query(_SPENT, wanted)
        except ClickHouseError as error:
            raise self._unavailable(error) from None
        found = {(workspace, month): cost for workspace, month, cost in result.rows}
        return {key: usd(found.get((key[0], _month_number(key[1])), 0)) for key in months}

    async def close(self) -> None:
        await self._database.close()

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


def _refuse_impossible(batch: Sequence[UsageEvent]) -> None:
    for event in batch:
        reason = refusal(event)
        if reason is not None:
            raise LedgerRejectedError(f"The ledger cannot hold the attempt {event.attempt_id}: {reason}.")


def _name(batch: Sequence[UsageEvent], reason: str) -> str:
    if len(batch) == 1:
        return f"The ledger refused the attempt {batch[0].attempt_id}: {reason}"
    return f"The ledger refused one of {len(batch)} rows: {reason}"


def _month_number(month: str) -> int:
    """2026-11 → 202611, as ClickHouse's toYYYYMM has it."""
    return int(month.replace("-", ""))
