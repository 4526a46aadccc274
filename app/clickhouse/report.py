"""A workspace's usage of a period, out of the ledger."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, computed_field

from app.clickhouse.client import ClickHouse
from app.settings import Settings
from schemas.money import ZERO, Usd, usd

Dimension = Literal["total", "provider", "model", "purpose"]
DIMENSIONS: tuple[Dimension, ...] = ("total", "provider", "model", "purpose")

_MONTH = re.compile(r"^(\d{4})-(0[1-9]|1[0-2])$")
_DECEMBER = 12


@dataclass(frozen=True)
class Period:
    """From `start` until just before `end`, in UTC."""

    start: datetime
    end: datetime
    name: str = ""

    @classmethod
    def month(cls, text: str) -> Period:
        """The month YYYY-MM. Raises ValueError for anything else."""
        match = _MONTH.match(text)
        if match is None or text.startswith("0000"):
            raise ValueError(f"{text!r} is not a month like 2026-11")
        year, month = int(match[1]), int(match[2])
        following = (year + 1, 1) if month == _DECEMBER else (year, month + 1)
        return cls(datetime(year, month, 1, tzinfo=UTC), datetime(*following, 1, tzinfo=UTC), text)

    @classmethod
    def month_of(cls, moment: datetime) -> Period:
        return cls.month(f"{moment.astimezone(UTC):%Y-%m}")


class UsageLine(BaseModel):
    """Figures of one provider, model or purpose, or of all (`name` is empty). Latencies are in seconds."""

    model_config = ConfigDict(frozen=True)

    name: str = ""
    requests: int = 0
    attempts: int = 0
    failed_attempts: int = 0
    in_doubt_attempts: int = 0
    unpriced_attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    cost: Usd = ZERO
    #: The part of `cost` that nobody has confirmed.
    estimated_cost: Usd = ZERO
    #: Of the attempts that succeeded; None when there is none.
    latency_p50: float | None = None
    latency_p95: float | None = None

    @computed_field  # type: ignore[prop-decorator] # mypy knows no decorated properties
    @property
    def error_rate(self) -> float:
        """The share of attempts that failed, 0 to 1. One in doubt is not counted as failed."""
        return self.failed_attempts / self.attempts if self.attempts else 0.0


class UsageReport(BaseModel):
    """What one workspace used in one period. Parts are sorted by cost, the dearest first."""

    model_config = ConfigDict(frozen=True)

    workspace_id: str
    start: datetime
    end: datetime
    total: UsageLine = UsageLine()
    by_provider: tuple[UsageLine, ...] = ()
    by_model: tuple[UsageLine, ...] = ()
    by_purpose: tuple[UsageLine, ...] = ()


#: One pass for all four groupings. quantileExact, because quantile() answers differently from run to run.
_USAGE = """
SELECT
    multiIf(grouping(provider) = 0, 'provider', grouping(model) = 0, 'model', grouping(purpose_name) = 0, 'purpose',
            'total') AS dimension,
    multiIf(dimension = 'provider', toString(provider), dimension = 'model', toString(model), purpose_name) AS name,
    uniqExact(request_id) AS requests,
    count() AS attempts,
    countIf(outcome = 'failed') AS failed_attempts,
    countIf(outcome = 'in_doubt') AS in_doubt_attempts,
    countIf(cost_source = 'unpriced') AS unpriced_attempts,
    sum(prompt_tokens) AS prompt_tokens_sum,
    sum(completion_tokens) AS completion_tokens_sum,
    sum(total_tokens) AS total_tokens_sum,
    sum(cached_tokens) AS cached_tokens_sum,
    sum(cost) AS cost_sum,
    sumIf(cost, cost_source IN ('estimated', 'unpriced')) AS estimated_cost,
    quantileExactIf(0.5)(latency, outcome = 'succeeded') AS latency_p50,
    quantileExactIf(0.95)(latency, outcome = 'succeeded') AS latency_p95
FROM
(
    SELECT *, total_tokens, ifNull(toString(purpose), '') AS purpose_name
    FROM attempts FINAL
    WHERE workspace_id = {workspace:String}
      AND started_at >= {start:DateTime64(3, 'UTC')} AND started_at < {end:DateTime64(3, 'UTC')}
)
GROUP BY GROUPING SETS ((), (provider), (model), (purpose_name))
ORDER BY cost_sum DESC, attempts DESC, name
"""


async def usage_report(source: Settings | ClickHouse, workspace_id: str, period: Period) -> UsageReport:
    """The report of a workspace. An unknown workspace has an empty one. Raises ClickHouseError."""
    if isinstance(source, Settings):
        async with ClickHouse(source) as database:
            return await usage_report(database, workspace_id, period)
    found = await source.query(_USAGE, {"workspace": workspace_id, "start": period.start, "end": period.end})
    lines: dict[str, list[UsageLine]] = {dimension: [] for dimension in DIMENSIONS}
    for row in found.rows:
        values = dict(zip(found.names, row, strict=True))
        lines[values["dimension"]].append(_line(values))
    return UsageReport(
        workspace_id=workspace_id,
        start=period.start,
        end=period.end,
        total=lines["total"][0] if lines["total"] else UsageLine(),
        by_provider=tuple(lines["provider"]),
        by_model=tuple(lines["model"]),
        by_purpose=tuple(lines["purpose"]),
    )


def _line(values: Mapping[str, Any]) -> UsageLine:
    named = {name.removesuffix("_sum"): value for name, value in values.items() if name != "dimension"}
    for money in ("cost", "estimated_cost"):
        named[money] = usd(Decimal(named[money]))
    for latency in ("latency_p50", "latency_p95"):
        named[latency] = None if math.isnan(named[latency]) else named[latency]
    return UsageLine.model_validate(named)
