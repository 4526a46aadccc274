"""Each threshold is announced once, at its exact amount."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import BudgetAlert, WorkspaceSpend
from streams.alert.decide import MonthNote, is_worth_a_write, observe
from streams.budgets import Budget
from tests.unit.streams.making import NOW

BUDGET = Budget(Decimal(200))
NOTHING = MonthNote()


def spend(spent: str | Decimal) -> WorkspaceSpend:
    return WorkspaceSpend(workspace_id="acme", month="2026-01", spent=Decimal(spent))


def announced(*thresholds: int, high: str = "0") -> MonthNote:
    return MonthNote(Decimal(high), Decimal(high), dict.fromkeys(thresholds, 1))


def due(spent: str | Decimal, note: MonthNote = NOTHING, budget: Budget = BUDGET) -> list[int]:
    return [alert.threshold for alert in observe(note, spend(spent), budget, NOW).unsent]


def walk(steps: Iterable[tuple[str, Budget]]) -> list[BudgetAlert]:
    """What is announced while the spend goes these steps."""
    note = MonthNote()
    said: list[BudgetAlert] = []
    for spent, budget in steps:
        note = observe(note, spend(spent), budget, NOW)
        said += note.unsent
        note = note.sent()
    return said


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
    assert due(spent) == reached


def test_one_request_that_jumps_from_45_to_101_percent_raises_four_events_once() -> None:
    alerts = walk([("90", BUDGET), ("202", BUDGET), ("202", BUDGET), ("90", BUDGET), ("202", BUDGET)])
    assert [(alert.threshold, alert.kind) for alert in alerts] == [
        (50, "ai.budget.alert"),
        (80, "ai.budget.alert"),
        (90, "ai.budget.alert"),
        (100, "ai.budget.exceeded"),
    ]


def test_what_was_announced_is_not_repeated() -> None:
    assert due("170", announced(80, 50, high="165")) == []
    assert due("250", announced(100, 90, 80, 50, high="250")) == []


def test_a_forgotten_lower_threshold_is_announced_late_rather_than_never() -> None:
    assert due("170", announced(80, high="170")) == [50]


def test_thresholds_may_be_stated_in_any_order_and_twice_and_above_the_budget() -> None:
    assert due("15", budget=Budget(Decimal(10), (150, 50, 50, 100))) == [50, 100, 150]


def test_thresholds_that_are_set_meanwhile_count_from_the_next_observation_on() -> None:
    later = replace(BUDGET, thresholds=(25, 80))
    assert [alert.threshold for alert in walk([("110", BUDGET), ("111", later), ("160", later)])] == [50, 25, 80]


def test_a_budget_without_thresholds_announces_nothing() -> None:
    assert due("5000", budget=Budget(Decimal(10), ())) == []


def test_a_lowered_budget_announces_what_it_has_been_passed_by() -> None:
    assert [alert.threshold for alert in walk([("90", BUDGET), ("91", Budget(Decimal(100)))])] == [50, 80, 90]


def test_a_budget_raised_above_the_spend_is_announced_again_when_it_is_reached() -> None:
    raised = Budget(Decimal(400))
    said = walk([("200", BUDGET), ("201", raised), ("320", raised), ("400", raised), ("400", raised)])
    assert [(alert.threshold, alert.occurrence) for alert in said] == [
        *((threshold, 1) for threshold in (50, 80, 90, 100)),
        *((threshold, 2) for threshold in (80, 90, 100)),
    ], "50 % of the raised budget was spent already when it was raised"
    assert [alert.event_id for alert in said[-3:]] == ["acme/2026-01/80/2", "acme/2026-01/90/2", "acme/2026-01/100/2"]


def test_a_budget_raised_below_the_spend_says_nothing_new() -> None:
    raised = Budget(Decimal(210))
    said = walk([("230", BUDGET), ("231", raised), ("300", raised)])
    assert [alert.occurrence for alert in said] == [1, 1, 1, 1]


def test_a_budget_lowered_and_raised_back_announces_again_only_what_is_reached_anew() -> None:
    lowered = Budget(Decimal(150))
    said = walk([("170", BUDGET), ("170", lowered), ("171", BUDGET), ("171", lowered), ("250", BUDGET)])
    assert [(alert.threshold, alert.occurrence, alert.budget) for alert in said] == [
        *((threshold, 1, Decimal(200)) for threshold in (50, 80)),
        *((threshold, 1, Decimal(150)) for threshold in (90, 100)),
        *((threshold, 2, Decimal(200)) for threshold in (90, 100)),
    ]


def test_an_alert_says_how_much_of_what_was_spent_and_where_it_leads() -> None:
    middle = datetime(2026, 1, 16, 12, tzinfo=UTC)
    alerts = observe(MonthNote(), spend("161.01"), BUDGET, middle).unsent
    assert [alert.event_id for alert in alerts] == ["acme/2026-01/50", "acme/2026-01/80"]
    assert {(alert.spent, alert.budget, alert.percent) for alert in alerts} == {(Decimal("161.01"), Decimal(200), 80.5)}
    assert {alert.forecast for alert in alerts} == {Decimal("322.02")}
    assert all(alert.observed_at == middle for alert in alerts)


def test_from_the_whole_budget_on_it_is_exceeded() -> None:
    alerts = observe(MonthNote(), spend("300"), Budget(Decimal(200), (99, 100, 120)), NOW).unsent
    assert [alert.kind for alert in alerts] == ["ai.budget.alert", "ai.budget.exceeded", "ai.budget.exceeded"]


def test_a_late_cost_of_a_month_that_is_over_is_announced_and_foretells_nothing() -> None:
    later = datetime(2026, 3, 9, tzinfo=UTC)
    (alert,) = observe(announced(50, high="150"), spend("160"), BUDGET, later).unsent
    assert (alert.month, alert.threshold, alert.forecast) == ("2026-01", 80, Decimal(160))


@given(st.lists(st.decimals(0, 400, places=9), min_size=1, max_size=20))
def test_in_whatever_steps_the_spend_comes_each_threshold_is_announced_once(steps: list[Decimal]) -> None:
    said = [alert.threshold for alert in walk([(str(spent), BUDGET) for spent in steps])]
    assert len(said) == len(set(said))
    assert sorted(said) == [each for each in BUDGET.thresholds if max(steps) >= each * 2]


amounts = st.integers(1, 60).map(Decimal)


@given(st.lists(st.tuples(amounts, amounts), min_size=1, max_size=20))
def test_a_threshold_is_announced_again_only_above_all_that_was_spent(steps: list[tuple[Decimal, Decimal]]) -> None:
    note, high = MonthNote(), Decimal(0)
    for spent, amount in steps:
        note = observe(note, spend(spent), Budget(amount), NOW)
        for alert in note.unsent:
            assert alert.occurrence == 1 or amount * alert.threshold > high * 100
            assert spent * 100 >= amount * alert.threshold
        note, high = note.sent(), max(high, spent)


@pytest.mark.parametrize(
    ("before", "after", "written"),
    [
        ("0", "0", False),
        ("0", "0.000000001", True),
        ("50", "51.9", False),
        ("50", "52", True),
        ("50", "48", True),
        ("1", "1.09", False),
        ("1", "1.1", True),
    ],
)
def test_a_figure_is_written_when_it_has_moved(before: str, after: str, written: bool) -> None:
    note = MonthNote(Decimal(before), Decimal(before))
    assert is_worth_a_write(note, observe(note, spend(after), BUDGET, NOW), BUDGET) is written


def test_what_is_to_be_said_is_always_written() -> None:
    note = MonthNote(Decimal("99.9"), Decimal("99.9"))
    assert is_worth_a_write(note, observe(note, spend("100"), BUDGET, NOW), BUDGET)
