"""What ClickHouse knows, asked as the reading user when somebody looks: nobody looks, nothing is asked."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from app.clickhouse.client import ClickHouse, Row
from app.clickhouse.errors import ClickHouseError
from app.settings import Settings
from app.web.costs import hours_until
from app.web.facts import Answered, Flow, HourCost, Ledger, Minute, Tried
from app.web.flow import WINDOW
from schemas.money import usd

log = logging.getLogger(__name__)

#: Minutes in the chart, and requests in the list.
MINUTES = 30
LATEST = 20
#: How far back the latest requests are looked for: first here, and only where these are too few further.
NEAR, FAR = timedelta(minutes=15), timedelta(days=7)
#: Seconds that an answer counts as new, and that a question may take.
FRESH = 1.5
TIMEOUT = 5.0
#: Seconds that somebody who looks waits for news.
WAIT = 1.5
#: The costs are counted over many rows: they rest this many times as long as they took.
REST = 20

_MINUTES = """
SELECT toStartOfMinute(answered_at) AS minute, countIf(status = 'succeeded'), countIf(status = 'succeeded' AND cached),
       countIf(status != 'succeeded')
FROM outcomes FINAL
WHERE answered_at >= {start:DateTime64(3, 'UTC')}
GROUP BY minute
"""

_WINDOW = """
SELECT count(), countIf(status = 'succeeded'), countIf(status = 'succeeded' AND cached), countIf(status != 'succeeded'),
       quantilesExactIf(0.5, 0.95)(latency, status = 'succeeded')
FROM outcomes FINAL
WHERE answered_at >= {start:DateTime64(3, 'UTC')}
"""

_COSTS = """
SELECT toStartOfHour(started_at) AS hour, provider, model, count(), sum(total_tokens), sum(cost)
FROM (SELECT started_at, provider, model, total_tokens, cost FROM attempts FINAL
      WHERE started_at >= {start:DateTime64(3, 'UTC')})
GROUP BY hour, provider, model
"""

_NEWEST = """
FROM outcomes FINAL
WHERE answered_at >= {start:DateTime64(3, 'UTC')}
ORDER BY answered_at DESC, workspace_id, request_id
LIMIT {most:UInt32}
"""

_LATEST = f"""
SELECT workspace_id, request_id, kind, status, error_code, provider, model, purpose, cached, total_tokens, cost, saved,
       requested_at, answered_at, latency
{_NEWEST}
"""

_ATTEMPTS = f"""
SELECT workspace_id, request_id, attempt, provider, model, lane, outcome, error_code, total_tokens, cost, cost_source,
       started_at, latency
FROM attempts FINAL
WHERE (workspace_id, request_id) IN (SELECT workspace_id, request_id {_NEWEST})
  AND started_at >= {{start:DateTime64(3, 'UTC')}} - INTERVAL 1 DAY
ORDER BY attempt
LIMIT 50 BY workspace_id, request_id
"""  # noqa: S608 - of this file's own words


class Figures:
    """Keeps what ClickHouse said last. One question is under way at a time, however many are looking."""

    def __init__(self, settings: Settings) -> None:
        self._database = ClickHouse(settings, reader=True, timeout=TIMEOUT)
        self._known = Ledger()
        self._asked = self._costs_due = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def known(self) -> Ledger:
        """What is known now, at most a moment old; what was known last, where the server is slow or away."""
        if self._asking is None and asyncio.get_running_loop().time() - self._asked >= FRESH:
            self._asking = asyncio.create_task(self._refresh())
        if self._asking is not None:
            await asyncio.wait({self._asking}, timeout=WAIT)
        return self._known

    async def aclose(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})
        await self._database.close()

    async def _refresh(self) -> None:
        try:
            self._known = await self._look(datetime.now(UTC))
        except Exception:
            # The page must outlive what nobody has thought of.
            log.exception("page_figures_failed")
            self._known = replace(self._known, problem="ClickHouse cannot be read; the page's log says why.")
        finally:
            self._asked = asyncio.get_running_loop().time()
            self._asking = None

    async def _look(self, now: datetime) -> Ledger:
        try:
            flow, latest, costs = await asyncio.gather(self._flow(now), self._latest(now), self._costs(now))
        except ClickHouseError as error:
            return replace(self._known, problem=str(error))
        return Ledger(flow, costs, latest, at=now)

    async def _flow(self, now: datetime) -> Flow:
        start = _minute(now) - timedelta(minutes=MINUTES - 1)
        minutes = await self._ask(_MINUTES, start=start)
        [window] = await self._ask(_WINDOW, start=now - timedelta(minutes=WINDOW))
        return flow_of(minutes, window, start)

    async def _latest(self, now: datetime) -> tuple[Answered, ...]:
        for back in (NEAR, FAR):
            rows = await self._ask(_LATEST, start=now - back, most=LATEST)
            if len(rows) == LATEST or (back is FAR and rows):
                return latest_of(rows, await self._ask(_ATTEMPTS, start=now - back, most=LATEST))
        return ()

    async def _costs(self, now: datetime) -> tuple[HourCost, ...]:
        begun = asyncio.get_running_loop().time()
        if begun < self._costs_due and self._known.at is not None:
            return self._known.costs
        rows = await self._ask(_COSTS, start=hours_until(now)[0])
        ended = asyncio.get_running_loop().time()
        self._costs_due = ended + REST * (ended - begun)
        return costs_of(rows)

    async def _ask(self, sql: str, **parameters: Any) -> list[Row]:
        found = await self._database.query(sql, parameters)
        return found.rows


def flow_of(minutes: Iterable[Row], window: Row, start: datetime) -> Flow:
    """The rows as a flow. Minutes without an answer are there as well; there is no median of nothing."""
    counted = {_utc(minute): counts for minute, *counts in minutes}
    every = (start + timedelta(minutes=number) for number in range(MINUTES))
    answered, succeeded, cached, failed, latencies = window
    p50, p95 = latencies if succeeded else (None, None)
    return Flow(
        tuple(Minute(at, *counted.get(at, (0, 0, 0))) for at in every), answered, succeeded, cached, failed, p50, p95
    )


def costs_of(rows: Iterable[Row]) -> tuple[HourCost, ...]:
    return tuple(
        HourCost(_utc(hour), provider, model, int(attempts), int(tokens), usd(cost))
        for hour, provider, model, attempts, tokens, cost in rows
    )


def latest_of(rows: Iterable[Row], attempts: Iterable[Row]) -> tuple[Answered, ...]:
    """Each request with its attempts."""
    tried: Mapping[tuple[str, str], list[Tried]] = defaultdict(list)
    for workspace, request_id, *values in attempts:
        tried[workspace, request_id].append(_tried(*values))
    return tuple(_answered(row, tuple(tried[row[0], row[1]])) for row in rows)


def _tried(number: int, *values: Any) -> Tried:
    provider, model, lane, outcome, error_code, tokens, cost, source, started_at, latency = values
    moment = _utc(started_at)
    return Tried(number, provider, model, lane, outcome, error_code, tokens, usd(cost), source, moment, latency)


def _answered(row: Row, tried: tuple[Tried, ...]) -> Answered:
    *names, cached, tokens, cost, saved, requested_at, answered_at, latency = row
    workspace, request_id, kind, status, error_code, provider, model, purpose = names
    return Answered(
        workspace=workspace,
        request_id=request_id,
        kind=kind,
        status=status,
        error_code=error_code,
        provider=provider,
        model=model,
        purpose=purpose,
        cached=bool(cached),
        tokens=tokens,
        cost=usd(cost),
        saved=usd(saved),
        requested_at=_utc(requested_at) if requested_at else None,
        answered_at=_utc(answered_at),
        latency=latency,
        tried=tried,
    )


def _minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def _utc(moment: datetime) -> datetime:
    """ClickHouse's own moments of DateTime columns come without a zone, though they are in UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
