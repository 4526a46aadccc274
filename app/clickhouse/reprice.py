"""Attempts of the past out of the ledger, as the usage events that they are; and how far corrections have arrived."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.clickhouse.client import ClickHouse
from app.clickhouse.period import Period
from app.clickhouse.slices import slices
from app.repricing import Priced
from schemas.usage import Correction, Tokens, UsageEvent

#: Seconds for one piece of the period.
TIMEOUT = 60.0


@dataclass(frozen=True)
class Which:
    """The attempts that are meant: of a period, and if wanted of one workspace, provider or model."""

    period: Period
    workspace: str | None = None
    provider: str | None = None
    model: str | None = None


_TOKENS = tuple(Tokens.model_fields)
_SAME = (
    *("workspace_id", "request_id", "attempt", "kind", "provider", "model", "user_id", "purpose", "lane"),
    *("priority", "outcome", "error_code", "cost", "cost_source", "requested_at", "started_at", "latency"),
)
_CORRECTION = (
    *("correction_run", "corrected_at", "corrected_by", "correction_reason"),
    *("previous_cost", "previous_source", "original_cost"),
)
_NAMES = (*_SAME, "budget_month", "version", *_TOKENS, *_CORRECTION)

_ATTEMPTS = f"""
SELECT {", ".join(_NAMES)}
FROM attempts FINAL
WHERE started_at >= {{start:DateTime64(3, 'UTC')}} AND started_at < {{end:DateTime64(3, 'UTC')}}
  AND ({{workspace:String}} = '' OR workspace_id = {{workspace:String}})
  AND ({{provider:String}} = '' OR provider = {{provider:String}})
  AND ({{model:String}} = '' OR model = {{model:String}})
SETTINGS do_not_merge_across_partitions_select_final = 1
"""  # noqa: S608 - made of our own columns' names


async def priced_attempts(database: ClickHouse, which: Which) -> AsyncIterator[Priced]:
    """The attempts as the ledger has them now, each once. Raises ClickHouseError."""
    named = {"workspace": which.workspace or "", "provider": which.provider or "", "model": which.model or ""}
    for part in await slices(database, "attempts", "started_at", which.period, which.workspace):
        found = await database.query(_ATTEMPTS, {"start": part.start, "end": part.end, **named})
        for row in found.rows:
            yield _priced(dict(zip(_NAMES, row, strict=True)))


def _priced(row: dict[str, Any]) -> Priced:
    same = {name: _aware(row[name]) for name in _SAME}
    tokens = Tokens.model_construct(**{name: row[name] for name in _TOKENS})
    usage = UsageEvent(**same, tokens=tokens, month=row["budget_month"] or None, correction=_correction(row))
    return Priced(usage, row["version"])


def _correction(row: dict[str, Any]) -> Correction | None:
    if row["correction_run"] is None:
        return None
    return Correction(
        run=row["correction_run"],
        at=_aware(row["corrected_at"]),
        by=row["corrected_by"],
        reason=row["correction_reason"],
        previous_cost=row["previous_cost"],
        previous_source=row["previous_source"],
        # Not kept, and not asked for: the row's version has it.
        previous_rank=0,
        original_cost=row["original_cost"],
    )


def _aware(value: Any) -> Any:
    """The client reads UTC columns as moments without a zone."""
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


async def arrived_corrections(database: ClickHouse, run: str) -> int:
    """How many corrections of a run the ledger has. Raises ClickHouseError."""
    found = await database.query("SELECT count() FROM corrections FINAL WHERE run = {run:String}", {"run": run})
    return int(found.rows[0][0])
