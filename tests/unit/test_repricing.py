"""History under another price book: what is corrected, what stays, and which version of an attempt counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.repricing import Left, Occasion, Priced, Tally, reprice
from schemas.usage import RANK_BIT, Outcome, Tokens, UsageEvent
from tests.support.values.usage import PerToken, usage

NOW = datetime(2026, 12, 1, tzinfo=UTC)
WHY = Occasion("run-1", NOW, "ann", "the list was wrong")
PENNY = PerToken("0.01")


def priced(event: UsageEvent) -> Priced:
    return Priced(event, event.version)


def corrected(event: UsageEvent, dollars: str, at: datetime = NOW, **options: Any) -> UsageEvent:
    occasion = Occasion("run", at, "ann", "why")
    found = reprice(priced(event), PerToken(dollars), occasion, **options)
    assert isinstance(found, UsageEvent)
    return found


def test_a_correction_says_who_when_and_why_and_what_it_was() -> None:
    before = usage(cost="0.01", cost_source="computed")
    after = reprice(priced(before), PENNY, WHY)
    assert isinstance(after, UsageEvent)
    assert after.correction is not None
    assert (after.cost, after.cost_source) == (Decimal("1.20"), "computed")
    assert after.correction.model_dump() == {
        "run": "run-1",
        "at": NOW,
        "by": "ann",
        "reason": "the list was wrong",
        "previous_cost": Decimal("0.01"),
        "previous_source": "computed",
        "previous_rank": 6,
        "original_cost": Decimal("0.01"),
    }
    assert after.event_id != before.event_id
    assert after.attempt_id == before.attempt_id


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"cost": "1.2"}, Left.UNCHANGED),
        ({"cost_source": "reported"}, Left.REPORTED),
        ({"outcome": Outcome.FAILED, "cost": "0", "tokens": Tokens()}, Left.NOT_BILLED),
        ({"outcome": Outcome.IN_DOUBT, "cost_source": "estimated", "tokens": Tokens()}, Left.NO_TOKENS),
        ({"model": "unheard-of"}, Left.NO_PRICE),
    ],
    ids=lambda value: str(value) if isinstance(value, Left) else "",
)
def test_what_stays_as_it_is_and_why(fields: dict[str, Any], why: Left) -> None:
    assert reprice(priced(usage(**fields)), PENNY, WHY) is why


@pytest.mark.parametrize(
    ("fields", "source"),
    [
        ({"cost_source": "unpriced", "cost": "0"}, "computed"),
        ({"cost_source": "estimated"}, "estimated"),
        ({"cost_source": "estimated", "outcome": Outcome.IN_DOUBT}, "estimated"),
        ({"cost_source": "unpriced", "outcome": Outcome.IN_DOUBT}, "estimated"),
    ],
)
def test_a_new_price_makes_no_estimate_more_certain(fields: dict[str, Any], source: str) -> None:
    assert corrected(usage(**fields), "0.01").cost_source == source


def test_what_has_no_price_of_its_own_is_an_estimate_under_a_new_price_as_well() -> None:
    heard = usage(cost="0.01", cost_source="computed", tokens=Tokens(prompt_tokens=9, audio_prompt_tokens=5))
    assert corrected(heard, "0.02").cost_source == "estimated"


def test_what_a_provider_has_reported_is_replaced_only_where_that_is_asked_for() -> None:
    before = usage(cost_source="reported")
    after = corrected(before, "0.01", reported=True)
    assert after.cost_source == "computed"
    assert after.version > before.version
    # And once more: the rank of what it has beaten goes on.
    assert corrected(after, "0.02", NOW + timedelta(days=1)).version > after.version > before.version


def test_the_second_run_changes_nothing() -> None:
    assert reprice(priced(corrected(usage(), "0.01")), PENNY, WHY) is Left.UNCHANGED


def test_the_original_cost_stays_known_through_all_corrections() -> None:
    twice = corrected(corrected(usage(cost="0.5"), "0.01"), "0.02", NOW - timedelta(days=1))
    assert twice.correction is not None
    assert (twice.correction.previous_cost, twice.correction.original_cost) == (Decimal("1.2"), Decimal("0.5"))
    # A clock that is behind is no reason to be the older one.
    assert twice.correction.at == NOW + timedelta(microseconds=1)


def test_a_known_outcome_beats_a_doubt_that_was_corrected() -> None:
    doubt = usage(outcome=Outcome.IN_DOUBT, cost="9", cost_source="estimated")
    known = usage(request_id=doubt.request_id, cost="0.1")
    assert doubt.version < corrected(doubt, "0.01").version < known.version


costs = st.decimals(min_value=0, max_value=Decimal("999999999.999999999"), places=9)


@given(costs, costs, st.sampled_from(["unpriced", "estimated", "computed", "reported"]), st.booleans(), st.booleans())
def test_no_repeat_that_knows_as_much_wins_over_a_correction(
    cost: Decimal, dearer: Decimal, source: Any, known: bool, down: bool
) -> None:
    # What costs nothing before and after is not corrected.
    assume(cost or not down)
    outcome = Outcome.SUCCEEDED if known else Outcome.IN_DOUBT
    before = usage(cost=cost, cost_source=source, outcome=outcome)
    again = usage(cost=dearer, cost_source=source, outcome=outcome)
    after = corrected(before, "0" if down else "123456.789", reported=True)
    assert after.version > max(before.version, again.version)
    assert after.version >> RANK_BIT >= before.version >> RANK_BIT
    assert after.version < 2**64
    later = corrected(after, "77", NOW)
    assert later.version > after.version


@given(st.lists(st.tuples(st.sampled_from(["0", "0.01", "0.02", "7"]), st.integers(-5, 5)), min_size=1, max_size=5))
def test_the_last_of_several_corrections_counts_in_any_order_of_arrival(steps: list[tuple[str, int]]) -> None:
    events = [usage(cost="0.5")]
    for dollars, days in steps:
        found = reprice(priced(events[-1]), PerToken(dollars), Occasion("r", NOW + timedelta(days=days), "a", "b"))
        events += [found] if isinstance(found, UsageEvent) else []
    assert max(events, key=lambda event: event.version) is events[-1]
    assert len({event.version for event in events}) == len(events)


def test_a_tally_adds_up_what_changed_and_what_did_not() -> None:
    tally = Tally()
    for event in (usage(cost="0.2"), usage(cost="1.2"), usage(cost="3", cost_source="reported", model="o3")):
        tally.add(priced(event), reprice(priced(event), PENNY, WHY))
    total = tally.total
    assert (total.attempts, total.changed, total.old, total.new) == (3, 1, Decimal("4.4"), Decimal("5.4"))
    assert tally.left == {Left.UNCHANGED: 1, Left.REPORTED: 1}
    assert tally.left_cost[Left.REPORTED] == 3
    assert list(tally.lines) == [("openai", "gpt-4o"), ("openai", "o3")]
