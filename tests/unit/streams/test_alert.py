"""Each threshold is announced once, at its exact amount."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import WorkspaceSpend
from streams.alert.agent import decode_thresholds, encode_thresholds
from streams.alert.decide import BudgetPolicy, crossed
from tests.unit.streams.making import NOW

POLICY = BudgetPolicy(Decimal(200))


def thresholds(spent: str | Decimal, announced: tuple[int, ...] = (), policy: BudgetPolicy = POLICY) -> list[int]:
    spend = WorkspaceSpend(workspace_id="acme", month="2026-01", spent=Decimal(spent))
    return [alert.threshold for alert in crossed(spend, announced, policy, NOW)]


@pytest.mark.parametrize(
    ("spent", "reached"),
    [
        ("0", []),
        ("99.999999999", []),
        ("100", [50]),
        ("159.999999999", [50]),
        ("160", [50, 80]),
        ("199.999999999", [50, 80, 90]),
        ("200", [50, 80, 90, 100]),
        ("5000", [50, 80, 90, 100]),
        ("-1", []),
    ],
)
def test_a_threshold_is_reached_exactly_at_its_amount(spent: str, reached: list[int]) -> None:
    assert thresholds(spent) == reached


def test_a_jump_over_several_thresholds_announces_each_of_them_lowest_first() -> None:
    assert thresholds("195", announced=(50,)) == [80, 90]


def test_what_was_announced_is_not_repeated() -> None:
    assert thresholds("170", announced=(80, 50)) == []
    assert thresholds("250", announced=(100, 90, 80, 50)) == []


def test_a_forgotten_lower_threshold_is_announced_late_rather_than_never() -> None:
    assert thresholds("170", announced=(80,)) == [50]


def test_thresholds_may_be_stated_in_any_order_and_twice_and_above_the_budget() -> None:
    policy = BudgetPolicy(Decimal(10), (150, 50, 50, 100))
    assert thresholds("15", policy=policy) == [50, 100, 150]


def test_an_alert_says_how_much_of_what_was_spent() -> None:
    spend = WorkspaceSpend(workspace_id="acme", month="2026-01", spent=Decimal("161.01"))
    alerts = crossed(spend, (), POLICY, NOW)
    assert [alert.event_id for alert in alerts] == ["acme/2026-01/50", "acme/2026-01/80"]
    assert {(alert.spent, alert.budget, alert.percent) for alert in alerts} == {(Decimal("161.01"), Decimal(200), 80.5)}
    assert all(alert.observed_at == NOW for alert in alerts)


def test_from_the_whole_budget_on_it_is_exceeded() -> None:
    spend = WorkspaceSpend(workspace_id="acme", month="2026-01", spent=Decimal(300))
    alerts = crossed(spend, (), BudgetPolicy(Decimal(200), (99, 100, 120)), NOW)
    assert [alert.kind for alert in alerts] == ["ai.budget.alert", "ai.budget.exceeded", "ai.budget.exceeded"]


@given(st.lists(st.decimals(0, 400, places=9), min_size=1, max_size=20))
def test_in_whatever_steps_the_spend_comes_each_threshold_is_announced_once(steps: list[Decimal]) -> None:
    announced: list[int] = []
    for spent in steps:
        announced += thresholds(spent, tuple(announced))
    assert len(announced) == len(set(announced))
    assert sorted(announced) == [each for each in POLICY.thresholds if max(steps) >= each * 2]


def test_announced_thresholds_survive_their_table() -> None:
    assert decode_thresholds(encode_thresholds([50, 80])) == [50, 80]
