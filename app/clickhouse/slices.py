"""A long period of a table in pieces, so that no answer is larger than a client can hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from app.clickhouse.client import ClickHouse
from app.clickhouse.report import Period

#: Rows of one piece, about: an hour is never divided.
ROWS = 100_000

_HOURS = """
SELECT toUnixTimestamp(toStartOfHour({column})) AS hour, count()
FROM {table}
WHERE {column} >= {{start:DateTime64(3, 'UTC')}} AND {column} < {{end:DateTime64(3, 'UTC')}}
  AND ({{workspace:String}} = '' OR workspace_id = {{workspace:String}})
GROUP BY hour
ORDER BY hour
"""


async def slices(
    database: ClickHouse, table: str, column: str, period: Period, workspace: str | None = None
) -> list[Period]:
    """Parts of the period that hold rows, in order, cut at full hours. Raises ClickHouseError."""
    sql = _HOURS.format(table=table, column=column)
    found = await database.query(sql, {"start": period.start, "end": period.end, "workspace": workspace or ""})
    hours = [(datetime.fromtimestamp(hour, UTC), rows) for hour, rows in found.rows]
    return [_within(part, period) for part in gather(hours, ROWS)]


def gather(hours: Sequence[tuple[datetime, int]], rows: int) -> Iterable[Period]:
    """Hours that follow each other, together while they hold no more than so many rows. Pure."""
    start: datetime | None = None
    end, held = datetime.min.replace(tzinfo=UTC), 0
    for hour, count in hours:
        if start is not None and held + count > rows:
            yield Period(start, end)
            start, held = None, 0
        start = start or hour
        end, held = hour + timedelta(hours=1), held + count
    if start is not None:
        yield Period(start, end)


def _within(part: Period, period: Period) -> Period:
    return Period(max(part.start, period.start), min(part.end, period.end))
