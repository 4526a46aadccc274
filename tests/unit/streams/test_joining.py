"""Who waits for an identical request, and who asks for itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from schemas.base import Priority
from schemas.codec import encode
from schemas.response import Status
from streams.admit.decide import AdmissionPolicy, Answer, Decision, Forward, Join, Leader, decide
from streams.sharing import CachePolicy, Kept
from tests.unit.streams.test_admit_decide import LATER, NOW, POLICY, completion, seen
from tests.unit.streams.test_landing import succeeded

CACHING: AdmissionPolicy = replace(POLICY, cache=CachePolicy(ttl=60))
LEADER = Leader(3, NOW.timestamp() + 600, "2026-01", Priority.NORMAL)


def decided(leader: Leader | None = LEADER, kept: tuple[Kept, ...] = (), **fields: Any) -> Decision:
    return decide(completion(**fields), seen(7, cache_key="key", leader=leader, kept=kept), CACHING, NOW)


def test_one_that_asks_the_same_joins_and_reserves_nothing() -> None:
    decision = decided()
    assert isinstance(decision, Join)
    assert decision.record.sharing is not None
    assert (decision.record.sharing.flight, decision.record.sharing.joined) == (3, True)
    assert decision.record.reserved == 0


def test_the_first_one_leads() -> None:
    decision = decided(leader=None)
    assert isinstance(decision, Forward)
    assert decision.leads
    assert decision.record.sharing is not None
    assert (decision.record.sharing.flight, decision.record.sharing.ttl) == (7, 60)


def test_one_that_streams_leads_those_that_do_not() -> None:
    decision = decided(leader=None, stream=True)
    assert isinstance(decision, Forward)
    assert decision.leads


@pytest.mark.parametrize(
    ("leader", "fields"),
    [
        (LEADER, {"deadline": NOW + timedelta(seconds=599)}),
        (LEADER, {"priority": "interactive"}),
        (replace(LEADER, month="2025-12"), {}),
    ],
)
def test_one_that_waiting_would_cost_something_asks_for_itself(leader: Leader, fields: dict[str, Any]) -> None:
    decision = decided(leader=leader, **fields)
    assert isinstance(decision, Forward)
    assert not decision.leads
    assert decision.record.sharing is not None
    assert decision.record.sharing.flight is None, "its answer is kept all the same"


@pytest.mark.parametrize(
    "fields", [{"priority": "batch"}, {"deadline": NOW + timedelta(seconds=600)}, {"stream": True}]
)
def test_one_that_loses_nothing_by_waiting_joins_however_it_reads_its_answer(fields: dict[str, Any]) -> None:
    assert isinstance(decided(**fields), Join)


def test_a_kept_answer_is_given_again_to_the_byte_when_it_is_delivered_again() -> None:
    kept = (Kept("r-0", NOW.timestamp() - 5, NOW.timestamp() + 55, encode(succeeded())),)
    first = decided(kept=kept)
    assert isinstance(first, Answer)
    assert (first.response.status, first.response.cached) == (Status.SUCCEEDED, True)
    again = decide(completion(), seen(7, first.record, cache_key="key", kept=kept), CACHING, LATER)
    assert again == first


def test_an_answer_that_is_too_old_is_given_to_nobody_new() -> None:
    kept = (Kept("r-0", NOW.timestamp() - 90, NOW.timestamp() - 30, encode(succeeded())),)
    assert isinstance(decided(leader=None, kept=kept), Forward)


def test_one_that_had_joined_and_is_delivered_again_after_its_leader_has_gone_begins_anew() -> None:
    first = decided()
    assert isinstance(first, Join)
    again = decide(completion(), seen(7, first.record, cache_key="key"), CACHING, NOW)
    assert isinstance(again, Forward)
    assert again.leads
