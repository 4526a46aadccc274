"""When the sink tries again, and which months it tells about."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.usage import Outcome, UsageEvent
from streams.account.batch import BatchPolicy, months_of
from tests.unit.streams.making import NOW


def usage(workspace: str, requested_at: datetime, month: str | None = None) -> UsageEvent:
    return UsageEvent(
        request_id="r-1",
        workspace_id=workspace,
        attempt=1,
        provider="claude",
        model="m",
        outcome=Outcome.SUCCEEDED,
        cost=Decimal(1),
        requested_at=requested_at,
        started_at=NOW + timedelta(minutes=5),
        month=month,
    )


def test_an_empty_batch_touches_no_month() -> None:
    assert months_of([]) == frozenset()


def test_an_attempt_counts_in_the_month_that_its_event_says() -> None:
    batch = [usage("acme", NOW, "2026-02"), usage("acme", NOW, "2026-01"), usage("acme", NOW), usage("zeta", NOW)]
    assert months_of(batch) == {("acme", "2026-01"), ("acme", "2026-02"), ("zeta", "2026-01")}


def test_without_a_word_it_is_the_month_of_the_request_in_utc() -> None:
    tokyo = datetime(2026, 2, 1, 8, 0, tzinfo=timezone(timedelta(hours=9)))
    assert months_of([usage("acme", tokyo)]) == {("acme", "2026-01")}


@pytest.mark.parametrize(("tries", "wait"), [(1, 1.0), (2, 2.0), (4, 8.0), (5, 15.0), (100, 15.0)])
def test_waits_for_an_absent_ledger_double_until_their_maximum(tries: int, wait: float) -> None:
    assert BatchPolicy().retry_wait(tries) == wait


@given(st.integers(1, 10**9))
def test_a_ledger_may_be_away_for_any_time(tries: int) -> None:
    assert 0 < BatchPolicy().retry_wait(tries) <= 15.0


def test_no_more_than_two_batches_are_held_in_memory() -> None:
    assert BatchPolicy(rows=10).capacity == 20
