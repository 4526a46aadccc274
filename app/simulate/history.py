"""Past requests out of the ledger, with all their attempts; and what had been spent before them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from app.clickhouse.client import ClickHouse
from app.clickhouse.months import around
from app.clickhouse.period import Period
from app.clickhouse.reprice import Which, priced_attempts
from schemas.base import Month, Priority
from schemas.money import ZERO, usd
from schemas.usage import UsageEvent


@dataclass(frozen=True)
class Past:
    """A request of the past. Its attempts are in their order, and at least one."""

    workspace: str
    request_id: str
    attempts: tuple[UsageEvent, ...]

    @property
    def month(self) -> Month:
        return self.attempts[0].budget_month

    @property
    def requested_at(self) -> float:
        return self.attempts[0].requested_at.timestamp()

    @property
    def priority(self) -> Priority:
        return self.attempts[0].priority or Priority.NORMAL

    def pause_before(self, number: int) -> float:
        """Seconds between what came before the attempt (the request, or the attempt before it) and its call."""
        this = self.attempts[number].started_at.timestamp()
        if not number:
            return max(this - self.requested_at, 0.0)
        before = self.attempts[number - 1]
        return max(this - before.started_at.timestamp() - before.latency, 0.0)


@dataclass(frozen=True)
class History:
    """`opening` is what a month of a workspace had spent before the period, in US dollars; `refused` are requests by
    workspace for which a budget had no room, of which nobody knows what they would have used.
    """

    requests: tuple[Past, ...] = ()
    opening: dict[tuple[str, Month], Decimal] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)


async def read_history(
    database: ClickHouse, period: Period, *, workspace: str | None = None, month: Month | None = None
) -> History:
    """All attempts that began in a period; with a month those that count in its budget, whenever they began.

    Raises ClickHouseError.
    """
    where = Period(*around([month])) if month else period
    found = [attempt.usage async for attempt in priced_attempts(database, Which(where, workspace))]
    if month:
        found = [usage for usage in found if usage.budget_month == month]
    requests = tuple(sorted(grouped(found), key=lambda past: (past.requested_at, past.workspace, past.request_id)))
    months = {past.month for past in requests}
    opening = {} if month or not months else await _opening(database, period, months, workspace)
    return History(requests, opening, await _refused(database, where, workspace, month))


def grouped(attempts: Iterable[UsageEvent]) -> Iterator[Past]:
    """The requests that attempts belong to. Pure."""
    found: dict[tuple[str, str], list[UsageEvent]] = {}
    for usage in attempts:
        found.setdefault((usage.workspace_id, usage.request_id), []).append(usage)
    for (workspace, request_id), own in found.items():
        yield Past(workspace, request_id, tuple(sorted(own, key=lambda usage: usage.attempt)))


_OPENING = """
SELECT workspace_id, toString(budget_month) AS month, sum(cost)
FROM attempts FINAL
WHERE started_at >= {start:DateTime64(3, 'UTC')} AND started_at < {end:DateTime64(3, 'UTC')}
  AND month IN {months:Array(String)} AND ({workspace:String} = '' OR workspace_id = {workspace:String})
GROUP BY workspace_id, month
SETTINGS do_not_merge_across_partitions_select_final = 1
"""


async def _opening(
    database: ClickHouse, period: Period, months: Collection[Month], workspace: str | None
) -> dict[tuple[str, Month], Decimal]:
    asked = {"start": around(months)[0], "end": period.start, "months": sorted(months), "workspace": workspace or ""}
    found = await database.query(_OPENING, asked)
    return {(name, month): usd(cost) for name, month, cost in found.rows}


_REFUSED = """
SELECT workspace_id, count()
FROM outcomes FINAL
WHERE answered_at >= {start:DateTime64(3, 'UTC')} AND answered_at < {end:DateTime64(3, 'UTC')}
  AND status = 'rejected' AND error_code = 'budget_exceeded'
  AND ({workspace:String} = '' OR workspace_id = {workspace:String})
  AND ({month:String} = '' OR budget_month = {month:String})
GROUP BY workspace_id
"""


async def _refused(database: ClickHouse, period: Period, workspace: str | None, month: Month | None) -> dict[str, int]:
    asked = {"start": period.start, "end": period.end, "workspace": workspace or "", "month": month or ""}
    return {name: int(count) for name, count in (await database.query(_REFUSED, asked)).rows}


def cost_of(requests: Iterable[Past]) -> Decimal:
    """What the requests have cost, by the ledger."""
    return sum((usage.cost for past in requests for usage in past.attempts), ZERO)
