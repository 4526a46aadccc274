"""How long rows are kept: the settings as TTL of the tables, changed only where they differ.

A setting that is not made leaves the tables as they are (new ones keep everything), so that a worker without it does
not undo what an operator has set elsewhere; 0 keeps everything from now on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from app.clickhouse.client import ClickHouse
from app.settings import Settings

#: Table → what its age is counted from.
_LEDGER = {
    "attempts": "toDateTime(started_at)",
    "outcomes": "toDateTime(answered_at)",
    "usage_hours": "hour",
    "outcome_hours": "hour",
}
_CONTENTS = {"contents": "toDateTime(at)"}

_TTL = re.compile(r"\bTTL (.+?)(?: SETTINGS |$)")


async def retention_changes(database: ClickHouse, settings: Settings) -> list[str]:
    """The statements that bring the tables' TTL to what the settings say, if they differ. Raises ClickHouseError."""
    found = await database.query("SELECT name, engine_full FROM system.tables WHERE database = currentDatabase()")
    return list(changes(settings, {name: ttl_of(engine) for name, engine in found.rows}))


def ttl_of(engine: str) -> str:
    """The TTL in ClickHouse's own words for a table, empty for none."""
    match = _TTL.search(engine)
    return match[1] if match else ""


def changes(settings: Settings, current: Mapping[str, str]) -> Iterator[str]:
    """The statements, given each table's TTL. Pure."""
    kept = (
        (_LEDGER, settings.ledger_retention_months, "toIntervalMonth"),
        (_CONTENTS, settings.content_retention_days, "toIntervalDay"),
    )
    for tables, length, interval in kept:
        if length is None:
            continue
        for table, age in tables.items():
            wanted = f"{age} + {interval}({length})" if length else ""
            if wanted == current.get(table, ""):
                continue
            yield f"ALTER TABLE {table} MODIFY TTL {wanted}" if wanted else f"ALTER TABLE {table} REMOVE TTL"
