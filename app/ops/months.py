"""How the budgets of this worker's workspaces stand in their current months, as the statements tell it.

A figure for each workspace is a risk: there may be a hundred thousand of them. So those are named whose budget is used
up most, what is reserved included, and the others are one sum.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from schemas.base import Month
from streams.accounts import Account, dollars, nanos
from streams.budgets import BudgetBook

#: Stands for all workspaces that are not named. No workspace id begins with an @.
OTHERS = "@others"


@dataclass(frozen=True)
class Standing:
    """A workspace's current month, in US dollars."""

    workspace_id: str
    spent: Decimal
    reserved: Decimal
    budget: Decimal


@dataclass(frozen=True)
class Overview:
    """The workspaces that are named, the most used first; and the sums over the others, and over all."""

    named: tuple[Standing, ...] = ()
    others_spent: Decimal = Decimal(0)
    others_reserved: Decimal = Decimal(0)
    workspaces: int = 0
    over: int = 0


class Months:
    """`owned` names the partitions that are this worker's, `most` says how many workspaces may be named."""

    def __init__(
        self,
        budgets: BudgetBook,
        owned: Callable[[], Collection[int]],
        clock: Callable[[], datetime],
        most: int,
    ) -> None:
        self._budgets = budgets
        self._owned = owned
        self._clock = clock
        self._most = most
        #: The newest month of each workspace, its account and its partition.
        self._known: dict[str, tuple[Month, Account, int]] = {}

    def hear(self, workspace_id: str, month: Month, account: Account, partition: int) -> None:
        """Late reports may still change a month that is over; the newest one is the one to watch."""
        known = self._known.get(workspace_id)
        if known is None or known[0] <= month:
            self._known[workspace_id] = (month, account, partition)

    def overview(self) -> Overview:
        """Whole numbers throughout: a hundred thousand workspaces must not hold up the worker's loop for long."""
        current = self._current()
        named = heapq.nlargest(self._most, current, key=lambda one: one.used)
        rest = [sum(one.account.spent for one in current), sum(one.account.reserved for one in current)]
        rest[0] -= sum(one.account.spent for one in named)
        rest[1] -= sum(one.account.reserved for one in named)
        return Overview(
            named=tuple(one.standing() for one in named),
            others_spent=dollars(rest[0]),
            others_reserved=dollars(rest[1]),
            workspaces=len(current),
            over=sum(one.account.spent >= one.budget for one in current),
        )

    def _current(self) -> list[_Current]:
        now, owned = self._clock(), set(self._owned())
        # The month of a zone and the nano-dollars of a budget are worked out once, not for each workspace.
        months: dict[str, Month] = {}
        amounts: dict[Decimal, int] = {}
        found = []
        for workspace_id, (month, account, partition) in self._known.items():
            if partition not in owned:
                continue
            budget = self._budgets.of(workspace_id)
            this_month = months.get(budget.time_zone) or months.setdefault(budget.time_zone, budget.month_of(now))
            if month >= this_month:
                amount = amounts.get(budget.amount) or amounts.setdefault(budget.amount, nanos(budget.amount))
                found.append(_Current(workspace_id, account, amount, account.committed / amount))
        return found


class _Current(NamedTuple):
    """A workspace's account of the current month; the budget in nano-dollars, and the share of it that is used."""

    workspace_id: str
    account: Account
    budget: int
    used: float

    def standing(self) -> Standing:
        spent, reserved = dollars(self.account.spent), dollars(self.account.reserved)
        return Standing(self.workspace_id, spent, reserved, dollars(self.budget))
