"""How a workspace's month stands against its budget, from the compacted topics. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from schemas.base import Month
from schemas.budget import BudgetChange, BudgetState
from schemas.codec import UndecodableError, decode
from schemas.money import ZERO, usd
from streams.budgets import Budget, BudgetBook
from streams.forecast import forecast

#: What an event may set; the rest is as in the settings.
FIELDS = ("amount", "thresholds", "action", "time_zone")
FULL = 100


@dataclass(frozen=True)
class Standing:
    """A workspace, its budget, which of its fields an event has set, and what the workers said of the month."""

    workspace_id: str
    month: Month
    budget: Budget
    set_fields: tuple[str, ...]
    state: BudgetState | None
    forecast: Decimal

    @property
    def spent(self) -> Decimal:
        return self.state.spent if self.state else ZERO

    @property
    def reserved(self) -> Decimal:
        return self.state.reserved if self.state else ZERO

    @property
    def left(self) -> Decimal:
        """Below zero where more was spent."""
        return usd(self.budget.amount - self.spent - self.reserved)

    @property
    def percent(self) -> float:
        """Of the budget, spent."""
        return float(round(self.spent * FULL / self.budget.amount, 2))

    @property
    def source(self) -> str:
        return "event" if self.set_fields else "default"


def book_of(default: Budget, records: Mapping[str, bytes]) -> BudgetBook:
    """The budgets as a worker knows them. What it would ignore is ignored."""
    book = BudgetBook(default)
    for key, value in records.items():
        book.hear(key.encode(), value)
    return book


def states_of(records: Mapping[str, bytes]) -> dict[str, BudgetState]:
    """The states by `workspace/month`; what is none is left out."""
    found = {}
    for key, value in records.items():
        try:
            state = decode(BudgetState, value)
        except UndecodableError:
            continue
        if state.key == key:
            found[key] = state
    return found


def standing(
    book: BudgetBook, states: Mapping[str, BudgetState], workspace_id: str, month: Month | None, now: datetime
) -> Standing:
    """How a workspace stands in a month, or in the one that its own clock shows."""
    budget = book.of(workspace_id)
    month = month or budget.month_of(now)
    state = states.get(f"{workspace_id}/{month}")
    leads_to = forecast(state.spent if state else ZERO, month, budget.zone, now)
    return Standing(workspace_id, month, budget, fields_of(book.own().get(workspace_id)), state, leads_to)


def all_standings(
    book: BudgetBook, states: Mapping[str, BudgetState], month: Month | None, now: datetime
) -> list[Standing]:
    """All workspaces that have a budget of their own, or have ever had a state, by name."""
    names = book.own().keys() | {state.workspace_id for state in states.values()}
    return [standing(book, states, name, month, now) for name in sorted(names)]


def fields_of(change: BudgetChange | None) -> tuple[str, ...]:
    """What an event sets."""
    return tuple(name for name in FIELDS if getattr(change, name, None) is not None)


def as_data(found: Standing) -> dict[str, Any]:
    """For programs. Money is a string, as on the wire."""
    return {
        "workspace_id": found.workspace_id,
        "month": found.month,
        "budget": f"{usd(found.budget.amount):f}",
        "thresholds": list(found.budget.thresholds),
        "action": found.budget.action,
        "time_zone": found.budget.time_zone,
        "source": found.source,
        "set": list(found.set_fields),
        "spent": f"{found.spent:f}",
        "reserved": f"{found.reserved:f}",
        "open_requests": found.state.open_requests if found.state else 0,
        "left": f"{found.left:f}",
        "percent": found.percent,
        "forecast": f"{found.forecast:f}",
        "at": found.state.at if found.state else None,
    }


def told(budget: Budget, amount: str) -> str:
    """A budget in words; `amount` is its amount for people."""
    marks = [str(each) for each in sorted(set(budget.thresholds))]
    said = f"announced at {in_words(marks)} %" if marks else "announced at no threshold"
    then = "refused" if budget.refuses else "let through"
    return f"{amount} a month by the clock of {budget.time_zone}, {said}; what goes beyond it is {then}"


def in_words(parts: Iterable[str]) -> str:
    """`50, 80 and 100`."""
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
