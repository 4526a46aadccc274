"""Whether an hour costs far more than a workspace's hours do. Pure.

The observations are month-to-date figures. What an hour has cost is how far they have risen above where the hour before
left them: repeats and figures that arrive out of order within an hour change nothing, and a figure that has been
corrected downwards is where the next hour begins. A workspace's first figure of all is where its count begins; it may
be older than the hour.

An hour is announced, once, when it has cost

- more than FACTOR times the mean of the last HABIT_HOURS hours with any spend, of which there must be LEAST_HOURS:
  a workspace that is new has no habit, and nights without work do not make a morning remarkable;
- and more than LEAST_PERCENT of the month's budget: what costs next to nothing alarms nobody.

Announced or not, an hour becomes part of the habit: a new level of spend is remarkable for some hours, then usual.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal

from schemas.alert import SpendAnomaly, WorkspaceSpend
from schemas.base import Month
from schemas.money import ZERO, usd
from streams.budgets import Budget

FACTOR = 4
HABIT_HOURS = 24
LEAST_HOURS = 6
LEAST_PERCENT = 1
FULL = 100
#: Months of which the figures are followed: this one, the one before, and the one that begins elsewhere.
METERED_MONTHS = 3

HOUR_SECONDS = 3_600


@dataclass(frozen=True)
class Meter:
    """A month's figure: where the hour began, and the highest that was seen in it."""

    base: Decimal
    seen: Decimal | None = None

    @property
    def risen(self) -> Decimal:
        return ZERO if self.seen is None else max(self.seen - self.base, ZERO)

    def next_hour(self) -> Meter:
        return Meter(self.base if self.seen is None else self.seen)


@dataclass(frozen=True)
class Habit:
    """A workspace's spend by the hour. `hour` counts hours since 1970; `past` are the costs of earlier ones, the oldest
    first, without those in which nothing was spent; `told`: this hour was announced.
    """

    hour: int = -1
    meters: Mapping[str, Meter] = field(default_factory=dict)
    past: tuple[Decimal, ...] = ()
    told: bool = False
    unsent: tuple[SpendAnomaly, ...] = ()

    @property
    def spent(self) -> Decimal:
        """What the hour has cost so far."""
        return sum((meter.risen for meter in self.meters.values()), ZERO)

    def sent(self) -> Habit:
        return replace(self, unsent=())


def observe(habit: Habit, spend: WorkspaceSpend, budget: Budget, now: datetime) -> Habit:
    """The habit with this figure in it, and in `unsent` what it calls for. What comes late of an earlier hour is left
    to the next figure.
    """
    hour = int(now.timestamp()) // HOUR_SECONDS
    if hour < habit.hour:
        return habit
    if hour > habit.hour:
        habit = _turned(habit, hour)
    habit = replace(habit, meters=_read(habit.meters, spend.month, spend.spent))
    if habit.told or not _is_remarkable(habit, budget.amount):
        return habit
    return replace(habit, told=True, unsent=(*habit.unsent, _anomaly(habit, spend, budget, now)))


def is_worth_a_write(before: Habit, habit: Habit) -> bool:
    """Whether the table must know: a new hour, a new month, a word to say, or an hour that has grown by a tenth.

    What was not written of an hour is counted in the next one: at most a tenth, and none is lost.
    """
    if (habit.hour, habit.told, habit.meters.keys()) != (before.hour, before.told, before.meters.keys()):
        return True
    return habit.spent != before.spent and habit.spent * 10 >= before.spent * 11


def _turned(habit: Habit, hour: int) -> Habit:
    past = (*habit.past, habit.spent) if habit.spent else habit.past
    meters = {month: meter.next_hour() for month, meter in habit.meters.items()}
    return replace(habit, hour=hour, meters=meters, past=past[-HABIT_HOURS:], told=False)


def _read(meters: Mapping[str, Meter], month: Month, figure: Decimal) -> dict[str, Meter]:
    known = meters.get(month)
    if known is None:
        begins = bool(meters) and month > max(meters)
        known = Meter(ZERO if begins else figure)
    seen = figure if known.seen is None else max(known.seen, figure)
    read = {**meters, month: Meter(known.base, seen)}
    return {name: read[name] for name in sorted(read)[-METERED_MONTHS:]}


def _is_remarkable(habit: Habit, amount: Decimal) -> bool:
    hours, spent = len(habit.past), habit.spent
    return hours >= LEAST_HOURS and spent * hours > FACTOR * sum(habit.past) and spent * FULL > amount * LEAST_PERCENT


def _anomaly(habit: Habit, spend: WorkspaceSpend, budget: Budget, now: datetime) -> SpendAnomaly:
    return SpendAnomaly(
        workspace_id=spend.workspace_id,
        month=spend.month,
        hour=datetime.fromtimestamp(habit.hour * HOUR_SECONDS, UTC),
        spent=habit.spent,
        usual=usd(sum(habit.past, ZERO) / len(habit.past)),
        budget=usd(budget.amount),
        observed_at=now,
    )
