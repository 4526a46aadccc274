"""Budgets as every worker knows them: the deployment's default, and what events have set. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from schemas.base import Month
from schemas.budget import BudgetAction, BudgetChange
from schemas.codec import UndecodableError, decode


@dataclass(frozen=True)
class Budget:
    """What a workspace may spend in a month of its time zone, in US dollars, and what happens then."""

    amount: Decimal
    thresholds: tuple[int, ...] = (50, 80, 90, 100)
    action: BudgetAction = BudgetAction.ALERT
    time_zone: str = "UTC"

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)

    @property
    def refuses(self) -> bool:
        return self.action is BudgetAction.REFUSE

    def month_of(self, moment: datetime) -> Month:
        """The month in which a moment lies, by the workspace's clock."""
        return f"{moment.astimezone(self.zone):%Y-%m}"

    def changed(self, change: BudgetChange) -> Budget:
        """This budget, with what an event says instead."""
        return Budget(
            amount=self.amount if change.amount is None else change.amount,
            thresholds=self.thresholds if change.thresholds is None else change.thresholds,
            action=self.action if change.action is None else change.action,
            time_zone=self.time_zone if change.time_zone is None else change.time_zone,
        )


@dataclass
class BudgetBook:
    """Reads `ai.budgets`, of which every worker knows all."""

    default: Budget
    _changes: dict[str, BudgetChange] = field(default_factory=dict)

    def hear(self, key: bytes | None, value: bytes | None) -> bool:
        """Take over a record. False for one that is no budget, or not under its own key; it changes nothing."""
        workspace = (key or b"").decode(errors="replace")
        if value is None:
            self._changes.pop(workspace, None)
            return True
        try:
            change = decode(BudgetChange, value)
        except UndecodableError:
            return False
        if change.workspace_id != workspace:
            return False
        self._changes[workspace] = change
        return True

    def of(self, workspace_id: str) -> Budget:
        change = self._changes.get(workspace_id)
        return self.default if change is None else self.default.changed(change)

    def own(self) -> dict[str, BudgetChange]:
        """The workspaces whose budget has been set, with what was set."""
        return dict(self._changes)
