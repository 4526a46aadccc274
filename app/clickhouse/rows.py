"""Usage, outcomes and alerts as columns of their tables. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from app.clickhouse.shape import Shape, milliseconds
from schemas.usage import UsageEvent
from streams.account.announced import Announced
from streams.account.answered import Answered
from streams.account.content import Content

#: Eighteen digits, nine of them after the point: what Decimal(18, 9) holds.
_MOST_NANOS = 10**18 - 1
_MOST_TOKENS = 2**48
_MOST_ATTEMPTS = 2**32 - 1
_MOST_PERCENT = 2**16 - 1
#: Milliseconds since 1970 that DateTime64(3) holds and months can be counted in: until 2200.
_LATEST = 7_258_118_400_000

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
    ("priority", "Nullable(String)", lambda e: e.priority),
    ("outcome", "String", lambda e: e.outcome.value),
    ("error_code", "Nullable(String)", lambda e: e.error_code),
    ("prompt_tokens", "UInt64", lambda e: e.tokens.prompt_tokens),
    ("completion_tokens", "UInt64", lambda e: e.tokens.completion_tokens),
    ("cached_tokens", "UInt64", lambda e: e.tokens.cached_tokens),
    ("cache_write_tokens", "UInt64", lambda e: e.tokens.cache_write_tokens),
    ("cache_write_1h_tokens", "UInt64", lambda e: e.tokens.cache_write_1h_tokens),
    ("reasoning_tokens", "UInt64", lambda e: e.tokens.reasoning_tokens),
    ("search_requests", "UInt64", lambda e: e.tokens.search_requests),
    ("audio_prompt_tokens", "UInt64", lambda e: e.tokens.audio_prompt_tokens),
    ("audio_completion_tokens", "UInt64", lambda e: e.tokens.audio_completion_tokens),
    ("service_tier", "Nullable(String)", lambda e: e.tokens.service_tier),
    ("cost", "Decimal(18, 9)", lambda e: e.cost),
    ("cost_source", "String", lambda e: e.cost_source),
    ("budget_month", "String", lambda e: e.budget_month),
    ("requested_at", "DateTime64(3, 'UTC')", lambda e: milliseconds(e.requested_at)),
    ("started_at", "DateTime64(3, 'UTC')", lambda e: milliseconds(e.started_at)),
    ("latency", "Float64", lambda e: e.latency),
    ("correction_run", "Nullable(String)", lambda e: e.correction and e.correction.run),
    ("corrected_at", "Nullable(DateTime64(6, 'UTC'))", lambda e: e.correction and e.correction.revision),
    ("corrected_by", "Nullable(String)", lambda e: e.correction and e.correction.by),
    ("correction_reason", "Nullable(String)", lambda e: e.correction and e.correction.reason),
    ("previous_cost", "Nullable(Decimal(18, 9))", lambda e: e.correction and e.correction.previous_cost),
    ("previous_source", "Nullable(String)", lambda e: e.correction and e.correction.previous_source),
    ("original_cost", "Nullable(Decimal(18, 9))", lambda e: e.correction and e.correction.original_cost),
)


def refusal(event: UsageEvent) -> str | None:
    """Why the ledger cannot hold this event, or None.

    Asked before anything is sent: ClickHouse would store some of these as another value, without a word.
    """
    if not _is_money(event.cost):
        return "its cost does not fit into 18 digits"
    if event.attempt > _MOST_ATTEMPTS:
        return "its attempt number is too large"
    if max(event.tokens.counts().values()) > _MOST_TOKENS:
        return "it counts more tokens than anybody can use"
    if not (_is_time(milliseconds(event.started_at)) and _is_time(milliseconds(event.requested_at))):
        return "its time is not between 1970 and 2200"
    return None if math.isfinite(event.latency) else "its latency is not a number"


def _is_money(amount: Decimal) -> bool:
    return 0 <= amount.scaleb(9) <= _MOST_NANOS


def _is_time(number: int) -> bool:
    return 0 <= number < _LATEST


ATTEMPTS: Shape[UsageEvent] = Shape("attempts", _COLUMNS, refusal, lambda e: f"the attempt {e.attempt_id}")


_OUTCOME_COLUMNS: tuple[tuple[str, str, Callable[[Answered], Any]], ...] = (
    ("workspace_id", "LowCardinality(String)", lambda a: a.workspace_id),
    ("request_id", "String", lambda a: a.request_id),
    ("kind", "LowCardinality(String)", lambda a: a.kind),
    ("status", "String", lambda a: a.status.value),
    ("error_code", "Nullable(String)", lambda a: a.error.code if a.error else None),
    ("provider", "Nullable(String)", lambda a: a.provider),
    ("model", "Nullable(String)", lambda a: a.model),
    ("user_id", "Nullable(String)", lambda a: a.user_id),
    ("purpose", "Nullable(String)", lambda a: a.purpose),
    ("cached", "Bool", lambda a: a.cached),
    ("attempts", "UInt32", lambda a: len(a.attempts)),
    ("prompt_tokens", "UInt64", lambda a: a.usage.prompt_tokens),
    ("completion_tokens", "UInt64", lambda a: a.usage.completion_tokens),
    ("cost", "Decimal(18, 9)", lambda a: a.usage.cost),
    ("saved", "Decimal(18, 9)", lambda a: a.saved or 0),
    ("budget_month", "String", lambda a: a.budget_month),
    ("requested_at", "Nullable(DateTime64(3, 'UTC'))", lambda a: a.requested_at and milliseconds(a.requested_at)),
    ("answered_at", "DateTime64(3, 'UTC')", lambda a: milliseconds(a.answered_at)),
    ("latency", "Float64", lambda a: a.latency),
    ("time_to_first_chunk", "Nullable(Float64)", lambda a: a.time_to_first_chunk),
)


def _outcome_refusal(answered: Answered) -> str | None:
    if not (_is_money(answered.usage.cost) and _is_money(answered.saved or Decimal(0))):
        return "its cost does not fit into 18 digits"
    if max(answered.usage.prompt_tokens, answered.usage.completion_tokens) > _MOST_TOKENS:
        return "it counts more tokens than anybody can use"
    times = [moment for moment in (answered.answered_at, answered.requested_at) if moment is not None]
    if not all(_is_time(milliseconds(moment)) for moment in times):
        return "its time is not between 1970 and 2200"
    seconds = (answered.latency, answered.time_to_first_chunk or 0.0)
    return None if all(map(math.isfinite, seconds)) else "its latency is not a number"


OUTCOMES: Shape[Answered] = Shape(
    "outcomes", _OUTCOME_COLUMNS, _outcome_refusal, lambda a: f"the outcome of {a.request_id}"
)

_ALERT_COLUMNS: tuple[tuple[str, str, Callable[[Announced], Any]], ...] = (
    ("workspace_id", "LowCardinality(String)", lambda a: a.workspace_id),
    ("event_id", "String", lambda a: a.event_id),
    ("kind", "LowCardinality(String)", lambda a: a.kind),
    ("month", "LowCardinality(String)", lambda a: a.month),
    ("threshold", "Nullable(UInt16)", lambda a: a.threshold),
    ("spent", "Decimal(18, 9)", lambda a: a.spent),
    ("budget", "Nullable(Decimal(18, 9))", lambda a: a.budget),
    ("percent", "Nullable(Float64)", lambda a: a.percent),
    ("forecast", "Nullable(Decimal(18, 9))", lambda a: a.forecast),
    ("observed_at", "DateTime64(3, 'UTC')", lambda a: milliseconds(a.observed_at)),
)


def _alert_refusal(alert: Announced) -> str | None:
    amounts = (alert.spent, alert.budget, alert.forecast)
    if not all(_is_money(amount) for amount in amounts if amount is not None):
        return "an amount of it does not fit into 18 digits"
    if not 0 <= (alert.threshold or 0) <= _MOST_PERCENT:
        return "its threshold is too large"
    return None if _is_time(milliseconds(alert.observed_at)) else "its time is not between 1970 and 2200"


ALERTS: Shape[Announced] = Shape("alerts", _ALERT_COLUMNS, _alert_refusal, lambda a: f"the alert {a.event_id}")

_CONTENT_COLUMNS: tuple[tuple[str, str, Callable[[Content], Any]], ...] = (
    ("workspace_id", "LowCardinality(String)", lambda c: c.workspace_id),
    ("request_id", "String", lambda c: c.request_id),
    ("side", "String", lambda c: c.side),
    ("kind", "LowCardinality(String)", lambda c: c.kind),
    ("text", "String", lambda c: c.text),
    ("at", "DateTime64(3, 'UTC')", lambda c: milliseconds(c.at)),
)


def _content_refusal(content: Content) -> str | None:
    return None if _is_time(milliseconds(content.at)) else "its time is not between 1970 and 2200"


CONTENTS: Shape[Content] = Shape(
    "contents", _CONTENT_COLUMNS, _content_refusal, lambda c: f"the content of {c.request_id}"
)
