"""The ledger's side of an audit: rows of a period, and sums of whole months."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

from app.audit.books import Share
from app.audit.facts import LedgerRow, MonthSum, OutcomeRow, nanos
from app.clickhouse.client import ClickHouse
from app.clickhouse.report import Period
from app.clickhouse.slices import slices
from streams.lifecycle import request_key

#: Seconds for one statement: the sum over a month of a large ledger takes its time.
TIMEOUT = 120.0

_WORKSPACE = "({workspace:String} = '' OR workspace_id = {workspace:String})"
_SHARE = "CRC32(concat(workspace_id, '/', request_id)) % {of:UInt32} = {share:UInt32}"

_ROWS = f"""
SELECT workspace_id, request_id, attempt, toUnixTimestamp64Milli(started_at), toString(budget_month), version,
       reinterpretAsInt64(cost), reinterpretAsInt64(ifNull(original_cost, cost)), correction_run IS NOT NULL,
       outcome = 'in_doubt', cost_source = 'unpriced', recorded_at >= {{now:DateTime64(3, 'UTC')}}
FROM attempts FINAL
WHERE started_at >= {{start:DateTime64(3, 'UTC')}} AND started_at < {{end:DateTime64(3, 'UTC')}}
  AND {_WORKSPACE} AND {_SHARE}
"""  # noqa: S608 - made of our own text

_OUTCOMES = f"""
SELECT workspace_id, request_id, toUnixTimestamp64Milli(answered_at), toString(status), reinterpretAsInt64(cost),
       recorded_at >= {{now:DateTime64(3, 'UTC')}}
FROM outcomes FINAL
WHERE answered_at >= {{start:DateTime64(3, 'UTC')}} AND answered_at < {{end:DateTime64(3, 'UTC')}}
  AND {_WORKSPACE} AND {_SHARE}
"""  # noqa: S608

#: A request of a month may be called in the next one, and a zone's month begins up to a day beside that of UTC.
_MONTHS = f"""
SELECT workspace_id, toString(budget_month) AS month, sum(cost),
       sumIf(cost - ifNull(original_cost, cost), correction_run IS NOT NULL),
       toUnixTimestamp64Milli(max(recorded_at))
FROM attempts FINAL
WHERE started_at >= {{start:DateTime64(3, 'UTC')}} AND started_at < {{end:DateTime64(3, 'UTC')}}
  AND month IN {{months:Array(String)}} AND {_WORKSPACE}
GROUP BY workspace_id, month
SETTINGS do_not_merge_across_partitions_select_final = 1
"""  # noqa: S608


class LedgerReader:
    """Reads rows of one workspace, or of all. Raises ClickHouseError. `now` is by the server's own clock."""

    def __init__(self, database: ClickHouse, workspace: str | None) -> None:
        self._database = database
        self._workspace = workspace or ""
        self._now = datetime.now(UTC)

    async def begin(self) -> None:
        """Rows that are written from now on are fresh."""
        found = await self._database.query("SELECT now64(3, 'UTC')")
        self._now = found.rows[0][0].replace(tzinfo=UTC)

    async def rows(self, period: Period, share: Share) -> AsyncIterator[LedgerRow]:
        async for row in self._pieces("attempts", "started_at", _ROWS, period, share):
            workspace, request, *rest = row
            yield LedgerRow(request_key(workspace, request), *rest)

    async def outcomes(self, period: Period, share: Share) -> AsyncIterator[OutcomeRow]:
        async for row in self._pieces("outcomes", "answered_at", _OUTCOMES, period, share):
            workspace, request, *rest = row
            yield OutcomeRow(request_key(workspace, request), *rest)

    async def _pieces(
        self, table: str, column: str, sql: str, period: Period, share: Share
    ) -> AsyncIterator[tuple[Any, ...]]:
        named = {"workspace": self._workspace, "of": share.of, "share": share.number, "now": self._now}
        for part in await slices(self._database, table, column, period, self._workspace):
            found = await self._database.query(sql, {"start": part.start, "end": part.end, **named})
            for row in found.rows:
                yield row

    async def month_sums(self, months: list[str]) -> dict[tuple[str, str], MonthSum]:
        """The whole months, for budgets."""
        start = Period.month(months[0]).start - timedelta(days=2)
        end = Period.month(months[-1]).end + timedelta(days=32)
        wanted = {"start": start, "end": end, "months": months, "workspace": self._workspace}
        found = await self._database.query(_MONTHS, wanted)
        return {
            (workspace, month): MonthSum(workspace, month, nanos(cost), nanos(corrections), at)
            for workspace, month, cost, corrections, at in found.rows
        }


def months_of(period: Period) -> list[str]:
    """The months that a period touches, in any time zone."""
    month, last = _first(period.start - timedelta(days=1)), period.end + timedelta(days=1)
    found = []
    while month < last:
        found.append(f"{month:%Y-%m}")
        month = _first(month + timedelta(days=32))
    return found


def _first(moment: datetime) -> datetime:
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
