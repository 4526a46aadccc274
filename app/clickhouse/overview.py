"""What each workspace used in a budget month, out of the hourly figures."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from app.clickhouse.client import ClickHouse
from app.clickhouse.figures import AttemptFigures
from app.clickhouse.months import around, at_this_pace
from app.settings import Settings
from schemas.money import ZERO, Usd, usd


class WorkspaceLine(AttemptFigures):
    """One workspace's month. `requests` are terminal responses; money is in US dollars."""

    workspace_id: str
    requests: int = 0
    succeeded: int = 0
    cached: int = 0
    saved: Usd = ZERO
    #: At the end of the month, at the pace so far; None where nothing was spent.
    forecast: Usd | None = None


_USAGE = """
SELECT workspace_id,
       sum(attempts) AS attempts, sum(failed_attempts) AS failed_attempts, sum(in_doubt_attempts) AS in_doubt_attempts,
       sum(unpriced_attempts) AS unpriced_attempts, sum(prompt_tokens) AS prompt_tokens,
       sum(completion_tokens) AS completion_tokens, sum(total_tokens) AS total_tokens,
       sum(cost) AS cost, sum(estimated_cost) AS estimated_cost
FROM usage_hours FINAL
WHERE budget_month = {month:String}
  AND hour >= {start:DateTime64(3, 'UTC')} AND hour < {end:DateTime64(3, 'UTC')}
GROUP BY workspace_id
"""

_ANSWERS = """
SELECT workspace_id, sum(requests) AS requests, sum(succeeded) AS succeeded, sum(cached) AS cached, sum(saved) AS saved
FROM outcome_hours FINAL
WHERE budget_month = {month:String}
  AND hour >= {start:DateTime64(3, 'UTC')} AND hour < {end:DateTime64(3, 'UTC')}
GROUP BY workspace_id
"""


async def overview(
    source: Settings | ClickHouse, month: str, *, now: datetime | None = None
) -> tuple[WorkspaceLine, ...]:
    """All workspaces that had anything in the month, the dearest first. Raises ClickHouseError."""
    if isinstance(source, Settings):
        async with ClickHouse(source) as database:
            return await overview(database, month, now=now)
    start, end = around({month})
    asked = {"month": month, "start": start, "end": end}
    merged: dict[str, dict[str, Any]] = {}
    for statement in (_USAGE, _ANSWERS):
        found = await source.query(statement, asked, do_not_merge_across_partitions_select_final=1)
        for row in found.rows:
            # Hours that came to nothing stay as zeros (app/clickhouse/hours.py).
            if any(row[1:]):
                merged.setdefault(row[0], {}).update(zip(found.names, row, strict=True))
    lines = [_line(month, values, now or datetime.now(UTC)) for values in merged.values()]
    return tuple(sorted(lines, key=lambda line: (-line.cost, -line.requests, line.workspace_id)))


def _line(month: str, values: dict[str, Any], now: datetime) -> WorkspaceLine:
    for money in ("cost", "estimated_cost", "saved"):
        values[money] = usd(Decimal(values.get(money, 0)))
    return WorkspaceLine(**values, forecast=at_this_pace(month, values["cost"], now))
