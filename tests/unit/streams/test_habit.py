"""An hour far above a workspace's habit is announced once, and ordinary ones are not."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import SpendAnomaly, WorkspaceSpend
from streams.alert.habit import FACTOR, HABIT_HOURS, LEAST_HOURS, Habit, observe
from streams.budgets import Budget

BEGIN = datetime(2026, 11, 10, 7, tzinfo=UTC)
BUDGET = Budget(Decimal(100))

#: An hour since BEGIN, and the figure of a month.
Seen = tuple[float, str | Decimal]


def look(habit: Habit, hours: float, spent: str | Decimal, month: str = "2026-11", budget: Budget = BUDGET) -> Habit:
    figure = WorkspaceSpend(workspace_id="acme", month=month, spent=Decimal(spent))
    return observe(habit, figure, budget, BEGIN + timedelta(hours=hours))


def walk(figures: Iterable[Seen], budget: Budget = BUDGET) -> tuple[Habit, list[SpendAnomaly]]:
    habit = Habit()
    said: list[SpendAnomaly] = []
    for hours, spent in figures:
        habit = look(habit, hours, spent, budget=budget)
        said += habit.unsent
        habit = habit.sent()
    return habit, said


def hourly(*costs: str | Decimal) -> list[Seen]:
    """Figures that rise by so much in each hour; the first is where the count begins."""
    total, figures = Decimal(0), [(0.0, Decimal(0))]
    for hour, cost in enumerate(costs):
        total += Decimal(cost)
        figures.append((hour + 0.5, total))
    return list(figures)


def test_an_hour_of_more_than_four_times_the_usual_one_is_announced() -> None:
    _, said = walk(hourly(*["2"] * LEAST_HOURS, "8.000000001"))
    (anomaly,) = said
    assert anomaly.event_id == "acme/2026-11-10T13/anomaly"
    assert (anomaly.spent, anomaly.usual, anomaly.budget) == (Decimal("8.000000001"), Decimal(2), Decimal(100))
    assert (anomaly.hour, anomaly.month) == (datetime(2026, 11, 10, 13, tzinfo=UTC), "2026-11")


def test_four_times_the_usual_one_is_not() -> None:
    assert walk(hourly(*["2"] * LEAST_HOURS, "8"))[1] == []


def test_it_is_announced_as_soon_as_it_is_seen_and_not_again_in_that_hour() -> None:
    figures = [*hourly(*["1"] * 6), (6.1, "9"), (6.2, "11"), (6.3, "40"), (6.9, "41")]
    assert [anomaly.spent for anomaly in walk(figures)[1]] == [Decimal(5)]


def test_the_next_hour_is_announced_for_itself() -> None:
    hours = [anomaly.hour.hour for anomaly in walk(hourly(*["1"] * 6, "30", "40"))[1]]
    assert hours == [13, 14]


def test_a_workspace_that_is_new_has_no_habit() -> None:
    assert walk(hourly(*["1"] * (LEAST_HOURS - 1), "90"))[1] == []


def test_what_costs_next_to_nothing_of_the_budget_alarms_nobody() -> None:
    assert walk(hourly(*["0.01"] * 10, "1"))[1] == []
    assert len(walk(hourly(*["0.01"] * 10, "1.000000001"))[1]) == 1


def test_the_first_figure_is_where_the_count_begins() -> None:
    """A worker that begins in the middle of a month does not take all that was spent for one hour's."""
    habit, said = walk([(0, "5000"), (0.5, "5001")])
    assert (habit.spent, said) == (Decimal(1), [])


def test_nights_and_weekends_are_no_part_of_the_habit() -> None:
    figures = [*hourly(*["2"] * 6), (70.5, "19.9"), (95.2, "27")]
    assert walk(figures)[1] == []


def test_a_new_level_of_spend_becomes_usual() -> None:
    _, said = walk(hourly(*["1"] * HABIT_HOURS, *["10"] * 20))
    assert [anomaly.hour for anomaly in said] == [
        BEGIN + timedelta(hours=HABIT_HOURS + number) for number in range(len(said))
    ]
    assert 1 <= len(said) <= 5


def test_a_month_that_begins_counts_from_nothing_for_a_workspace_that_is_known() -> None:
    habit, _ = walk(hourly(*["2"] * 6))
    december = look(habit, 500, "9", "2026-12")
    assert [anomaly.spent for anomaly in december.unsent] == [Decimal(9)]
    assert december.unsent[0].month == "2026-12"


def test_late_costs_of_the_month_before_count_in_the_hour_in_which_they_come() -> None:
    habit, _ = walk(hourly(*["2"] * 6))
    habit = look(look(habit, 500, "1", "2026-12"), 500, "15", "2026-11")
    assert habit.spent == 4


def test_a_month_that_is_long_over_is_not_followed() -> None:
    habit = Habit()
    for month in ("2026-08", "2026-09", "2026-10", "2026-11"):
        habit = look(habit, 0, "5", month)
    assert look(habit, 0, "500", "2026-08").spent == habit.spent


def test_a_corrected_figure_is_where_the_next_hour_begins() -> None:
    habit, _ = walk([(0, "0"), (0.5, "100"), (1.5, "60"), (1.6, "70"), (2.1, "75")])
    assert (habit.past, habit.spent) == ((Decimal(100),), Decimal(5))


cents = st.integers(0, 500).map(lambda number: Decimal(number) / 100)


@given(st.lists(st.lists(cents, min_size=1, max_size=5), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_repeats_and_disorder_within_an_hour_change_nothing(hours: list[list[Decimal]], chance: random.Random) -> None:
    total, straight, mixed = Decimal(0), [(0.0, Decimal(0))], [(0.0, Decimal(0))]
    for hour, steps in enumerate(hours):
        figures = []
        for step in steps:
            total += step
            figures.append((hour + 0.5, total))
        straight += figures
        shuffled = figures + [chance.choice(figures) for _ in range(chance.randrange(3))]
        chance.shuffle(shuffled)
        mixed += shuffled
    (ours, said), (theirs, mixed_said) = walk(straight), walk(mixed)
    assert (ours.past, ours.spent, ours.hour) == (theirs.past, theirs.spent, theirs.hour)
    assert [anomaly.event_id for anomaly in said] == [anomaly.event_id for anomaly in mixed_said]


@given(st.lists(st.tuples(st.integers(0, 3), cents), max_size=60))
def test_what_is_announced_keeps_the_rule_once_an_hour_and_counts_no_money_twice(
    steps: Sequence[tuple[int, Decimal]],
) -> None:
    habit, hour, total, told = look(Habit(), 0, "0"), 0, Decimal(0), set()
    counted = Decimal(0)
    for later, cost in steps:
        if later:
            counted += habit.spent
        hour, total = hour + later, total + cost
        habit = look(habit.sent(), hour, total)
        assert counted + habit.spent == total
        for anomaly in habit.unsent:
            assert anomaly.event_id not in told
            told.add(anomaly.event_id)
            assert len(habit.past) >= LEAST_HOURS
            assert anomaly.spent * len(habit.past) > FACTOR * sum(habit.past)
            assert anomaly.spent > BUDGET.amount / 100


@given(st.lists(st.integers(100, 400), min_size=1, max_size=60))
def test_spend_that_varies_fourfold_never_alarms(costs: list[int]) -> None:
    assert walk(hourly(*(Decimal(cost) for cost in costs)))[1] == []
