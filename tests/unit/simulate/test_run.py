"""History run through the real decisions, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.simulate.findings import by_workspace, finding
from app.simulate.history import History, Past, cost_of, grouped
from app.simulate.lanes import LaneRules
from app.simulate.pricing import PriceUnknownError, under
from app.simulate.proposal import Model, Proposal
from app.simulate.run import Fate, Simulation
from schemas.base import Priority
from schemas.budget import BudgetAction
from schemas.money import NANO
from schemas.usage import Outcome, Tokens, UsageEvent
from streams.budgets import Budget
from streams.dispatch.quota import Limits
from streams.topology import LaneGroup, Topology
from tests.support.values.usage import NOVEMBER, PerToken, usage

TOPOLOGY = Topology("test", ("claude", "openai"), lanes={"openai": (LaneGroup("big", ("gpt-5*",)), LaneGroup())})
START = NOVEMBER.timestamp()


def event(second: float = 0.0, workspace: str = "w", *, pause: float = 0.1, **fields: Any) -> UsageEvent:
    """An attempt of a request that came at a second, and was called after a pause."""
    at = NOVEMBER + timedelta(seconds=second)
    times = {"requested_at": at, "started_at": at + timedelta(seconds=pause), "latency": 1.0}
    return usage(workspace, **{**times, **fields})


def history(*events: UsageEvent, **fields: Any) -> History:
    return History(tuple(sorted(grouped(events), key=lambda past: past.requested_at)), **fields)


def run(past: History, patience: float = 600.0, **proposed: Any) -> list[Fate]:
    proposal = Proposal(**proposed)
    rules = LaneRules(TOPOLOGY, proposal.limits, concurrency=64, look_ahead=20_000, weights={})
    return Simulation(proposal, rules, past, patience).run(past.requests)


def refusing(amount: str) -> Budget:
    return Budget(Decimal(amount), action=BudgetAction.REFUSE)


def total(fates: Sequence[Fate]) -> Decimal:
    return sum((fate.cost for fate in fates), Decimal(0))


EVENTS = st.lists(
    st.builds(
        lambda second, workspace, cost, latency, tokens: event(
            second / 1_000,
            workspace,
            cost=cost * NANO,
            latency=latency / 1_000,
            tokens=Tokens(prompt_tokens=tokens),
        ),
        st.integers(0, 300_000),
        st.sampled_from(["a", "b"]),
        st.integers(0, 10**9),
        st.integers(0, 90_000),
        st.integers(0, 500),
    ),
    max_size=25,
)


@given(events=EVENTS)
def test_without_a_proposal_all_is_as_it_was(events: list[UsageEvent]) -> None:
    past = history(*events)
    fates = run(past)
    assert total(fates) == cost_of(past.requests) == sum(one.cost for one in events)
    assert [fate.waited for fate in fates] == pytest.approx([0.1] * len(events), abs=1e-3)
    assert not any(fate.refused or fate.expired for fate in fates)


@given(events=EVENTS, amount=st.integers(1, 5 * 10**9), opening=st.integers(0, 10**9))
def test_a_budget_that_refuses_is_never_passed_and_touches_nobody_else(
    events: list[UsageEvent], amount: int, opening: int
) -> None:
    past = history(*events, opening={("a", "2026-11"): opening * NANO})
    fates = run(past, budgets={"a": refusing(f"{amount * NANO:f}")})
    mine = [fate for fate in fates if fate.past.workspace == "a"]
    assert total(mine) + opening * NANO <= max(amount, opening) * NANO
    assert total([fate for fate in fates if fate not in mine]) == cost_of(
        one for one in past.requests if one.workspace == "b"
    )
    # Whoever is refused did not fit beside what had been made room for by then.
    assert all(fate.paid == [] and fate.waited is None for fate in fates if fate.refused)


@given(events=EVENTS, rpm=st.integers(1, 30))
def test_a_limit_is_kept_in_every_minute_and_everybody_is_called_or_expires(events: list[UsageEvent], rpm: int) -> None:
    past = history(*events)
    fates = run(past, limits={"openai": Limits(rpm=rpm)})
    calls = sorted(fate.past.requested_at + fate.waited for fate in fates if fate.waited is not None)
    for first in calls:
        assert sum(first <= call < first + 60 for call in calls) <= rpm
    for fate in fates:
        assert (fate.waited is not None) != fate.expired
        assert fate.waited is None or fate.waited <= 600


def test_what_is_reserved_is_room_only_when_it_has_come_back() -> None:
    slow = event(0, cost="0.6", latency=10.0, request_id="slow")
    during = event(5, cost="0.6", request_id="during")
    after = event(20, cost="0.4", request_id="after")
    fates = run(history(slow, during, after), budgets={"w": refusing("1")})
    assert {fate.past.request_id: fate.refused for fate in fates} == {"slow": False, "during": True, "after": False}


def test_a_budget_that_alerts_refuses_nobody() -> None:
    fates = run(history(event(cost="5"), event(cost="5")), budgets={"w": Budget(Decimal(1))})
    assert total(fates) == 10


def test_months_have_accounts_of_their_own() -> None:
    fates = run(
        history(event(0, cost="1", month="2026-11"), event(1, cost="1", month="2026-12")),
        budgets={"w": refusing("1")},
    )
    assert [fate.refused for fate in fates] == [False, False]


def test_attempts_follow_each_other_after_their_pauses_and_each_is_paid() -> None:
    first = event(0, request_id="r", outcome=Outcome.IN_DOUBT, cost="0.2", latency=2.0)
    second = event(0, request_id="r", attempt=2, pause=5.1, cost="0.3")
    later = event(4, request_id="later", cost="0.5")
    [one, other] = run(history(second, first, later), budgets={"w": refusing("1")})
    assert (one.paid, one.refused) == ([Decimal("0.2"), Decimal("0.3")], False)
    assert one.past.pause_before(1) == pytest.approx(3.0)
    # At that moment 0.2 are spent and 0.3 reserved: 0.5 fit exactly.
    assert other.refused is False


def test_who_has_no_turn_in_time_expires_and_gives_back_what_was_reserved() -> None:
    crowd = [event(0, request_id=f"r{n}", cost="0.1") for n in range(20)]
    late = event(120, request_id="late", cost="0.1")
    fates = run(history(*crowd, late), patience=30.0, limits={"openai": Limits(rpm=5)}, budgets={"w": refusing("2.05")})
    called = [fate for fate in fates if fate.waited is not None]
    assert len(called) == 6
    assert fates[-1].waited is not None, "the room of those that expired was given back"
    assert total(fates) == Decimal("0.6")


def test_only_the_lanes_whose_limits_are_proposed_are_simulated() -> None:
    ours = [event(0, model="gpt-5", request_id=f"a{n}") for n in range(10)]
    others = [event(0, model="gpt-4o", request_id=f"b{n}") for n in range(10)]
    fates = run(history(*ours, *others), limits={"openai:big": Limits(rpm=5)})
    for fate in fates:
        if fate.past.attempts[0].model == "gpt-4o":
            assert fate.waited == pytest.approx(0.1, abs=1e-3)
    assert max(fate.waited or 0.0 for fate in fates) > 10


def test_the_more_urgent_ones_are_called_first() -> None:
    batch = [event(0, request_id=f"b{n}", priority=Priority.BATCH) for n in range(10)]
    urgent = [event(0.001, request_id=f"u{n}", priority=Priority.INTERACTIVE) for n in range(5)]
    fates = run(history(*batch, *urgent), limits={"openai": Limits(rpm=6)})
    waits = {fate.past.request_id: fate.waited or 0.0 for fate in fates}
    assert max(waits[f"u{n}"] for n in range(5)) < max(waits[f"b{n}"] for n in range(10))


# Models ------------------------------------------------------------------------------------------------------------


def changed(past: Past, **models: Model) -> Past:
    return under(
        Proposal(models={name.replace("_", "-"): new for name, new in models.items()}), past, PerToken("0.001")
    )


def test_another_model_is_priced_by_the_tokens_that_were_used() -> None:
    [past] = history(event(model="big", cost="7")).requests
    [made] = changed(past, big=Model("small", "claude")).attempts
    assert (made.provider, made.model, made.cost) == ("claude", "small", Decimal("0.12"))
    assert changed(past, other=Model("small")) == past


def test_what_was_not_billed_stays_free_and_a_doubt_without_tokens_keeps_its_estimate() -> None:
    failed = event(model="big", outcome=Outcome.FAILED, cost="0", request_id="r")
    doubt = event(model="big", outcome=Outcome.IN_DOUBT, cost="2", tokens=Tokens(), attempt=2, request_id="r")
    [past] = history(failed, doubt).requests
    assert [made.cost for made in changed(past, big=Model("small")).attempts] == [Decimal(0), Decimal(2)]


def test_a_model_without_a_price_is_told() -> None:
    [past] = history(event(model="big")).requests
    with pytest.raises(PriceUnknownError, match="Nobody knows what openai asks for unheard-of"):
        changed(past, big=Model("unheard-of"))


# Findings ----------------------------------------------------------------------------------------------------------


def test_findings_add_up_by_workspace_with_the_first_refusal() -> None:
    past = history(event(0, "a", cost="1"), event(60, "a", cost="1"), event(1, "b", cost="3", pause=2.0))
    fates = run(past, budgets={"a": refusing("1.5")})
    whole, parts = finding("total", past.requests, fates), by_workspace(past.requests, fates)
    found = [(part.name, part.then, part.cost, part.refused) for part in parts]
    assert found == [("b", Decimal(3), Decimal(3), 0), ("a", Decimal(2), Decimal(1), 1)]
    assert (whole.then, whole.cost, whole.difference, whole.requests) == (Decimal(5), Decimal(4), Decimal(-1), 3)
    assert whole.first_refused == NOVEMBER + timedelta(seconds=60)
    assert (whole.waits_then.longest, parts[1].waits.p50) == pytest.approx((2.0, 0.1), abs=1e-3)


def test_nobody_called_has_no_waits() -> None:
    past = history(event(cost="1"))
    assert finding("total", past.requests, run(past, budgets={"w": refusing("0.5")})).waits.p95 is None
