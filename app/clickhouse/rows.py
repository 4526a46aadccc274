"""Usage events as columns of the table `attempts`. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from schemas.usage import UsageEvent

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

#: Eighteen digits, nine of them after the point: what Decimal(18, 9) holds.
_MOST_NANOS = 10**18 - 1
_MOST_TOKENS = 2**48
_MOST_ATTEMPTS = 2**32 - 1
#: Milliseconds since 1970 that DateTime64(3) holds and months can be counted in: until 2200.
_LATEST = 7_258_118_400_000


def _milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MILLISECOND


#: Name, type on the wire, and where the value comes from. ClickHouse turns names of outcomes and sources into enums.
_COLUMNS: tuple[tuple[str, str, Callable[[UsageEvent], Any]], ...] = (
    ("workspace_id", "LowCardinality(String)", lambda e: e.workspace_id),
    ("request_id", "String", lambda e: e.request_id),
    ("attempt", "UInt32", lambda e: e.attempt),
    ("version", "UInt64", lambda e: e.version),
    ("kind", "LowCardinality(String)", lambda e: e.kind),
    ("provider", "LowCardinality(String)", lambda e: e.provider),
    ("model", "LowCardinality(String)", lambda e: e.model),
    ("user_id", "Nullable(String)", lambda e: e.user_id),
    ("purpose", "Nullable(String)", lambda e: e.purpose),
    ("lane", "LowCardinality(String)", lambda e: e.lane),
    ("outcome", "String", lambda e: e.outcome.value),
    ("error_code", "Nullable(String)", lambda e: e.error_code),
    ("prompt_tokens", "UInt64", lambda e: e.tokens.prompt_tokens),
    ("completion_tokens", "UInt64", lambda e: e.tokens.completion_tokens),
    ("cached_tokens", "UInt64", lambda e: e.tokens.cached_tokens),
    ("cache_write_tokens", "UInt64", lambda e: e.tokens.cache_write_tokens),
    ("cache_write_1h_tokens", "UInt64", lambda e: e.tokens.cache_write_1h_tokens),
    ("reasoning_tokens", "UInt64", lambda e: e.tokens.reasoning_tokens),
    ("search_requests", "UInt64", lambda e: e.tokens.search_requests),
    ("cost", "Decimal(18, 9)", lambda e: e.cost),
    ("cost_source", "String", lambda e: e.cost_source),
    ("budget_month", "String", lambda e: e.budget_month),
    ("requested_at", "DateTime64(3, 'UTC')", lambda e: _milliseconds(e.requested_at)),
    ("started_at", "DateTime64(3, 'UTC')", lambda e: _milliseconds(e.started_at)),
    ("latency", "Float64", lambda e: e.latency),
    ("correction_run", "Nullable(String)", lambda e: e.correction and e.correction.run),
    ("corrected_at", "Nullable(DateTime64(6, 'UTC'))", lambda e: e.correction and e.correction.revision),
    ("corrected_by", "Nullable(String)", lambda e: e.correction and e.correction.by),
    ("correction_reason", "Nullable(String)", lambda e: e.correction and e.correction.reason),
    ("previous_cost", "Nullable(Decimal(18, 9))", lambda e: e.correction and e.correction.previous_cost),
    ("previous_source", "Nullable(String)", lambda e: e.correction and e.correction.previous_source),
    ("original_cost", "Nullable(Decimal(18, 9))", lambda e: e.correction and e.correction.original_cost),
)

NAMES: tuple[str, ...] = tuple(name for name, _, _ in _COLUMNS)
TYPES: tuple[str, ...] = tuple(kind for _, kind, _ in _COLUMNS)


def columns(batch: Sequence[UsageEvent]) -> list[list[Any]]:
    """The batch turned on its side: one list per column, in the order of NAMES."""
    return [[read(event) for event in batch] for _, _, read in _COLUMNS]


def refusal(event: UsageEvent) -> str | None:
    """Why the ledger cannot hold this event, or None.

    Asked before anything is sent: ClickHouse would store some of these as another value, without a word.
    """
    if not 0 <= event.cost.scaleb(9) <= _MOST_NANOS:
        return "its cost does not fit into 18 digits"
    if event.attempt > _MOST_ATTEMPTS:
        return "its attempt number is too large"
    if max(vars(event.tokens).values()) > _MOST_TOKENS:
        return "it counts more tokens than anybody can use"
    if not (0 <= _milliseconds(event.started_at) < _LATEST and 0 <= _milliseconds(event.requested_at) < _LATEST):
        return "its time is not between 1970 and 2200"
    return None if math.isfinite(event.latency) else "its latency is not a number"
