"""Proposals as people write them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from app.simulate import proposal
from app.simulate.proposal import Model, Proposal, ProposalError
from schemas.budget import BudgetAction
from streams.budgets import Budget
from streams.dispatch.quota import Limits

KNOWN = {"claude": Limits(rpm=50, tpm=1_000), "claude:opus": Limits(rpm=5)}
DEFAULT = Budget(Decimal(1000), time_zone="Europe/Vienna")


def test_a_budget_keeps_what_it_does_not_state() -> None:
    assert proposal.budget("acme=50", DEFAULT) == ("acme", Budget(Decimal(50), time_zone="Europe/Vienna"))
    name, found = proposal.budget("team:a=0.5:refuse", DEFAULT)
    assert (name, found.amount, found.action) == ("team:a", Decimal("0.5"), BudgetAction.REFUSE)


def test_limits_are_those_in_force_but_for_what_is_stated() -> None:
    assert proposal.limit("claude:rpm=20", KNOWN, {}) == ("claude", Limits(rpm=20, tpm=1_000))
    assert proposal.limit("claude:opus:rpm=none,tph=9", KNOWN, {}) == ("claude:opus", Limits(tph=9))


def test_models_by_name_pattern_and_provider() -> None:
    providers = ("claude", "openai")
    models = dict(proposal.model(text, providers) for text in ("gpt-4o=gpt-4o-mini", "o*=claude/haiku", "a=org/b"))
    found = Proposal(models=models)
    assert found.model_for("gpt-4o") == Model("gpt-4o-mini")
    assert found.model_for("o3") == Model("haiku", "claude")
    assert found.model_for("a") == Model("org/b")
    assert found.model_for("gpt-4o-mini") is None


@pytest.mark.parametrize("text", ["acme", "=5", "acme=", "acme=lots", "acme=-1", "acme=5:explode", "no spaces=5"])
def test_no_budget(text: str) -> None:
    with pytest.raises(ProposalError, match="is no budget"):
        proposal.budget(text, DEFAULT)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("claude", "write it like"),
        ("clode:rpm=1", "there is no clode"),
        ("claude:rps=1", "'rps' is none of"),
        ("claude:rpm=0", "'0' is no number"),
        ("claude:rpm=x", "'x' is no number"),
        pytest.param(f"claude:rpm={'9' * 5_000}", "is no number", id="thousands of digits"),
        ("claude:rpm=3", "cannot be divided"),
    ],
)
def test_no_limit(text: str, told: str) -> None:
    with pytest.raises(ProposalError, match=told):
        proposal.limit(text, KNOWN, {"claude": 4})


@pytest.mark.parametrize("text", ["gpt-4o", "=x", "x="])
def test_no_model(text: str) -> None:
    with pytest.raises(ProposalError, match="is no change of a model"):
        proposal.model(text, ())


def test_a_proposal_is_told_in_lines() -> None:
    found = Proposal(
        dict([proposal.budget("acme=50.00:refuse", DEFAULT)]),
        dict([proposal.limit("claude:rpm=2000", KNOWN, {})]),
        dict([proposal.model("gpt-4o=claude/haiku", ("claude",))]),
    )
    assert proposal.told(found) == [
        "budget of acme: $50 a month, refuse",
        "limits of claude: rpm 2,000, tpm 1,000",
        "model gpt-4o: haiku of claude",
    ]
    assert not Proposal()
