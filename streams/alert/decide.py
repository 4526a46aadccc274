"""Which budget alerts a workspace's spend calls for. Pure.

A threshold is announced when it is reached and has not been announced in this month. It is announced again only where
the budget was raised so far that the threshold lay above all that had been spent, and is reached anew: what somebody
raised a budget to is worth another word, a small correction of the amount is not. So the note of a month keeps the
highest spend that was seen.

What is to be said is in the note before it is on the wire, and leaves the note afterwards. Whoever handles the
observation again after a crash says the same, word for word, whatever the budget is by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from schemas.alert import BudgetAlert, WorkspaceSpend
from schemas.money import ZERO, usd
from streams.budgets import Budget
from streams.forecast import forecast

FULL = 100


@dataclass(frozen=True)
class MonthNote:
    """What was announced of a workspace's month: how often each threshold. `unsent` may be on the wire, or not yet.

    `last` is the newest figure of what was spent, `high` the highest: a correction may have lowered it.
    """

    last: Decimal = ZERO
    high: Decimal = ZERO
    said: Mapping[int, int] = field(default_factory=dict)
    unsent: tuple[BudgetAlert, ...] = ()

    def sent(self) -> MonthNote:
        return replace(self, unsent=())


def observe(note: MonthNote, spend: WorkspaceSpend, budget: Budget, now: datetime) -> MonthNote:
    """The note with what this spend calls for in `unsent`, the lowest threshold first.

    Exact: the comparison is between decimals, so 50 % of the budget is reached at 50 % and not near it.
    """
    due = [each for each in sorted(set(budget.thresholds)) if _is_due(each, note, spend.spent, budget.amount)]
    said = {each: note.said.get(each, 0) + 1 for each in due}
    alerts = tuple(_alert(each, said[each], spend, budget, now) for each in due)
    return MonthNote(spend.spent, max(note.high, spend.spent), {**note.said, **said}, (*note.unsent, *alerts))


def is_worth_a_write(before: MonthNote, note: MonthNote, budget: Budget) -> bool:
    """Whether the table must know: something is to be said, or the figure has moved by a hundredth of the budget, or by
    a tenth of itself.

    Figures are month-to-date: the next one holds what was not written, so a busy workspace need not write each.
    """
    moved = abs(note.last - before.last)
    return note.said != before.said or (moved > 0 and (moved * FULL >= budget.amount or moved * 10 >= before.last))


def _is_due(threshold: int, note: MonthNote, spent: Decimal, amount: Decimal) -> bool:
    mark = amount * threshold
    return spent * FULL >= mark and (threshold not in note.said or mark > note.high * FULL)


def _alert(threshold: int, occurrence: int, spend: WorkspaceSpend, budget: Budget, now: datetime) -> BudgetAlert:
    return BudgetAlert(
        kind="ai.budget.exceeded" if threshold >= FULL else "ai.budget.alert",
        workspace_id=spend.workspace_id,
        month=spend.month,
        threshold=threshold,
        occurrence=occurrence,
        spent=spend.spent,
        budget=usd(budget.amount),
        percent=float(round(spend.spent * FULL / budget.amount, 2)),
        forecast=forecast(spend.spent, spend.month, budget.zone, now),
        observed_at=now,
    )
