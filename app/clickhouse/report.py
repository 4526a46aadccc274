"""A workspace's usage of a budget month, out of the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from app.clickhouse.advice import Advice, Prices, Repeated, Used, advise
from app.clickhouse.client import ClickHouse, Rows
from app.clickhouse.figures import AttemptFigures
from app.clickhouse.months import around, at_this_pace, last_moment
from app.settings import Settings
from schemas.money import ZERO, Usd, usd

Dimension = Literal["total", "provider", "model", "purpose", "user", "day"]
#: Where the number of calls stands in what was used for what.
_CALLS = 4
DIMENSIONS: tuple[Dimension, ...] = ("total", "provider", "model", "purpose", "user", "day")


class UsageLine(AttemptFigures):
    """Figures of one provider, model, purpose, user or day (UTC), or of all (`name` is empty). Latencies: seconds.

    `requests`, the latencies and what all reports count are of attempts; `answers` and `saved` are of terminal
    responses, also of those that made no attempt.
    """

    name: str = ""
    requests: int = 0
    cached_tokens: int = 0
    #: Of the attempts that succeeded; None when there is none.
    latency_p50: float | None = None
    latency_p95: float | None = None
    latency_p99: float | None = None
    answers: int = 0
    cached_answers: int = 0
    #: What the cached answers would have cost, in US dollars.
    saved: Usd = ZERO


class UsageReport(BaseModel):
    """What one workspace used in one budget month. Parts are sorted by cost, the dearest first; days by date."""

    model_config = ConfigDict(frozen=True)

    workspace_id: str
    month: str
    total: UsageLine = UsageLine()
    by_provider: tuple[UsageLine, ...] = ()
    by_model: tuple[UsageLine, ...] = ()
    by_purpose: tuple[UsageLine, ...] = ()
    by_user: tuple[UsageLine, ...] = ()
    by_day: tuple[UsageLine, ...] = ()
    #: US dollars at the end of the month, at the pace so far; None where nothing was spent.
    forecast: Usd | None = None
    recommendations: tuple[Advice, ...] = ()

    def parts(self) -> dict[Dimension, tuple[UsageLine, ...]]:
        """The lines of each dimension."""
        return {
            "provider": self.by_provider,
            "model": self.by_model,
            "purpose": self.by_purpose,
            "user": self.by_user,
            "day": self.by_day,
            "total": (self.total,),
        }


_DIMENSION = """
    multiIf(grouping(provider_name) = 0, 'provider', grouping(model_name) = 0, 'model',
            grouping(purpose_name) = 0, 'purpose', grouping(user_name) = 0, 'user', grouping(day) = 0, 'day', 'total')
"""
_NAME = """
    multiIf(dimension = 'provider', provider_name, dimension = 'model', model_name, dimension = 'purpose', purpose_name,
            dimension = 'user', user_name, dimension = 'day', toString(day), '')
"""
_SETS = "(), (provider_name), (model_name), (purpose_name), (user_name), (day)"
_NAMES = """
    ifNull(toString(provider), '') AS provider_name, ifNull(toString(model), '') AS model_name,
    ifNull(toString(purpose), '') AS purpose_name, ifNull(user_id, '') AS user_name
"""
_OF_MONTH = """
workspace_id = {workspace:String} AND budget_month = {month:String}
"""

#: One pass for all groupings. quantileExact, because quantile() answers differently from run to run. The dimension
#: `use` is what was used for what: the calls that succeeded and have a price, from which the advice is computed.
_USAGE = f"""
SELECT
    if(grouping(urgency) = 0, 'use', {_DIMENSION}) AS dimension,
    {_NAME} AS name,
    uniqExact(request_hash) AS requests,
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
    countIf(outcome = 'succeeded') AS succeeded,
    quantilesExactIf(0.5, 0.95, 0.99)(latency, outcome = 'succeeded') AS latencies,
    (provider_name, model_name, purpose_name, urgency, countIf(sure), sumIf(prompt_tokens, sure),
     sumIf(completion_tokens, sure), sumIf(cached_tokens, sure), sumIf(reasoning_tokens, sure), sumIf(cost, sure)
    ) AS use
FROM
(
    SELECT *, total_tokens, toDate(started_at) AS day, ifNull(toString(priority), '') AS urgency,
           -- What uniqExact would do itself, once for each grouping.
           reinterpretAsUInt128(sipHash128(request_id)) AS request_hash,
           outcome = 'succeeded' AND cost_source IN ('computed', 'reported') AS sure, {_NAMES}
    FROM attempts FINAL
    WHERE {_OF_MONTH}
      AND started_at >= {{start:DateTime64(3, 'UTC')}} AND started_at < {{end:DateTime64(3, 'UTC')}}
)
GROUP BY GROUPING SETS ({_SETS}, (provider_name, model_name, purpose_name, urgency))
"""  # noqa: S608 - of this file's own words

_ANSWERS = f"""
SELECT {_DIMENSION} AS dimension, {_NAME} AS name,
       count() AS answers, countIf(cached) AS cached_answers, sum(saved) AS saved_sum
FROM
(
    SELECT cached, saved, toDate(answered_at) AS day, {_NAMES}
    FROM outcomes FINAL
    WHERE {_OF_MONTH}
      AND answered_at >= {{start:DateTime64(3, 'UTC')}} AND answered_at < {{end:DateTime64(3, 'UTC')}}
)
GROUP BY GROUPING SETS ({_SETS})
"""  # noqa: S608

#: Of these purposes, which have no cached answer: what their answers cost that look like an earlier one, with the same
#: model and the same number of prompt tokens. Of each such group the dearest is left out, as the one that would have
#: been paid anyway.
_REPEATED = f"""
SELECT purpose_name, sum(alike) AS answers, sum(alike - 1) AS repeats, sum(paid - dearest) AS cost
FROM
(
    SELECT ifNull(toString(purpose), '') AS purpose_name, model, prompt_tokens,
           count() AS alike, sum(outcomes.cost) AS paid, max(outcomes.cost) AS dearest
    FROM outcomes FINAL
    WHERE {_OF_MONTH}
      AND answered_at >= {{start:DateTime64(3, 'UTC')}} AND answered_at < {{end:DateTime64(3, 'UTC')}}
      AND status = 'succeeded' AND prompt_tokens > 0 AND purpose_name IN {{purposes:Array(String)}}
    GROUP BY purpose_name, model, prompt_tokens
)
GROUP BY purpose_name
"""  # noqa: S608

#: A workspace's rows of a month are few: FINAL within each partition is enough, as in app/clickhouse/ledger.py.
_SETTINGS = {"do_not_merge_across_partitions_select_final": 1}


async def usage_report(
    source: Settings | ClickHouse,
    workspace_id: str,
    month: str,
    *,
    now: datetime | None = None,
    prices: Prices | None = None,
) -> UsageReport:
    """The report of a workspace; with a price book also its recommendations. An unknown workspace has an empty one.

    Raises ClickHouseError.
    """
    if isinstance(source, Settings):
        async with ClickHouse(source) as database:
            return await usage_report(database, workspace_id, month, now=now, prices=prices)
    now = now or datetime.now(UTC)
    start, end = around({month})
    asked = {"workspace": workspace_id, "month": month, "start": start, "end": end}
    # At the same time: each of them is the work of one of the server's threads.
    used, answered = map(
        _rows,
        await asyncio.gather(
            source.query(_USAGE, asked, **_SETTINGS),
            source.query(_ANSWERS, asked, **_SETTINGS),
        ),
    )
    lines = {dimension: _lines(dimension, used, answered) for dimension in DIMENSIONS}
    total = lines["total"][0] if lines["total"] else UsageLine()
    recommendations: tuple[Advice, ...] = ()
    if prices is not None:
        uses = [Used(*row["use"]) for row in used if row["dimension"] == "use" and row["use"][_CALLS]]
        repeated = await _repeated(source, asked, lines["purpose"])
        recommendations = advise(uses, repeated, prices, min(now, last_moment(month)))
    return UsageReport(
        workspace_id=workspace_id,
        month=month,
        total=total,
        by_provider=lines["provider"],
        by_model=lines["model"],
        by_purpose=lines["purpose"],
        by_user=lines["user"],
        by_day=lines["day"],
        forecast=at_this_pace(month, total.cost, now),
        recommendations=recommendations,
    )


async def _repeated(database: ClickHouse, asked: Mapping[str, Any], purposes: Iterable[UsageLine]) -> list[Repeated]:
    """What repeats in the purposes that are never answered from the cache."""
    uncached = [line.name for line in purposes if line.answers and not line.cached_answers]
    if not uncached:
        return []
    found = await database.query(_REPEATED, {**asked, "purposes": uncached}, **_SETTINGS)
    return [Repeated(*row) for row in found.rows]


def _rows(found: Rows) -> list[dict[str, Any]]:
    return [dict(zip(found.names, row, strict=True)) for row in found.rows]


def _lines(
    dimension: Dimension, used: Iterable[dict[str, Any]], answered: Iterable[dict[str, Any]]
) -> tuple[UsageLine, ...]:
    merged: dict[str, dict[str, Any]] = {}
    for row in (*used, *answered):
        if row["dimension"] == dimension:
            merged.setdefault(row["name"], {}).update(row)
    lines = [_line(values) for values in merged.values()]
    if dimension == "day":
        return tuple(sorted(lines, key=lambda line: line.name))
    return tuple(sorted(lines, key=lambda line: (-line.cost, -line.attempts, line.name)))


def _line(values: Mapping[str, Any]) -> UsageLine:
    named = {name.removesuffix("_sum"): value for name, value in values.items() if name not in ("dimension", "use")}
    latencies = named.pop("latencies", None)
    if not named.pop("succeeded", 0):
        latencies = (None, None, None)
    for money in ("cost", "estimated_cost", "saved"):
        named[money] = usd(Decimal(named.get(money, 0)))
    named |= zip(("latency_p50", "latency_p95", "latency_p99"), latencies, strict=True)
    return UsageLine.model_validate(named)
