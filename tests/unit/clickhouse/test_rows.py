"""Which repeat of an attempt counts, and what the ledger can hold."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.clickhouse.rows import ATTEMPTS, refusal
from schemas.usage import CostSource, Outcome, Tokens, UsageEvent

NOW = datetime(2026, 11, 23, 7, 0, 0, 123_456, tzinfo=UTC)
SOURCES: tuple[CostSource, ...] = ("unpriced", "estimated", "computed", "reported")
COSTS = st.decimals(0, Decimal("999999999.999999999"), places=9)


def usage(**fields: Any) -> UsageEvent:
    defaults: dict[str, Any] = {
        "request_id": "r",
        "workspace_id": "w",
        "attempt": 1,
        "provider": "claude",
        "model": "m",
        "outcome": Outcome.SUCCEEDED,
        "requested_at": NOW,
        "started_at": NOW,
    }
    return UsageEvent(**{**defaults, **fields})


@pytest.mark.parametrize("known", [Outcome.SUCCEEDED, Outcome.FAILED])
@pytest.mark.parametrize("source", SOURCES)
def test_a_known_outcome_beats_every_doubt(known: Outcome, source: CostSource) -> None:
    dear = usage(outcome=Outcome.IN_DOUBT, cost="999999999", cost_source="reported")
    assert usage(outcome=known, cost_source=source).version > dear.version


@pytest.mark.parametrize("outcome", Outcome)
def test_a_better_source_of_the_cost_beats_a_higher_cost(outcome: Outcome) -> None:
    events = [usage(outcome=outcome, cost_source=source, cost=9 - place) for place, source in enumerate(SOURCES)]
    assert sorted(events, key=lambda event: event.version) == events


@given(COSTS, COSTS)
def test_between_equals_the_dearer_one_counts(one: Decimal, other: Decimal) -> None:
    assert (usage(cost=one).version > usage(cost=other).version) == (one > other)


@given(st.sampled_from(Outcome), st.sampled_from(SOURCES), COSTS)
def test_every_version_fits_into_64_bits(outcome: Outcome, source: CostSource, cost: Decimal) -> None:
    event = usage(outcome=outcome, cost_source=source, cost=cost)
    assert 0 <= event.version < 2**64
    assert event.version >> 60 == event.rank


def test_an_event_becomes_one_value_in_each_column() -> None:
    found = ATTEMPTS.turned([usage(), usage(attempt=2)])
    assert len(found) == len(ATTEMPTS.names) == len(ATTEMPTS.types)
    assert {len(column) for column in found} == {2}
    row = {name: column[0] for name, column in zip(ATTEMPTS.names, found, strict=True)}
    assert row["started_at"] == int(NOW.timestamp()) * 1000 + 123
    assert row["outcome"] == "succeeded"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"cost": Decimal(10**9)}, "cost"),
        ({"cost": Decimal("-0.01")}, "cost"),
        ({"attempt": 2**32}, "attempt"),
        ({"tokens": Tokens(reasoning_tokens=2**60)}, "tokens"),
        ({"tokens": Tokens(completion_tokens=2**60)}, "tokens"),
        ({"tokens": Tokens(search_requests=2**60)}, "tokens"),
        ({"started_at": datetime(1969, 12, 31, tzinfo=UTC)}, "time"),
        ({"requested_at": datetime(2200, 1, 1, tzinfo=UTC)}, "time"),
        ({"latency": float("inf")}, "latency"),
    ],
)
def test_what_clickhouse_would_store_as_something_else_is_refused(fields: dict[str, Any], reason: str) -> None:
    assert reason in (refusal(usage(**fields)) or "")


def test_the_largest_cost_and_the_oldest_time_are_held() -> None:
    assert refusal(usage(cost="999999999.999999999", started_at=datetime(1970, 1, 1, tzinfo=UTC))) is None
