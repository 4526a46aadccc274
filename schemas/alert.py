"""Budget alerts: a workspace's cost of a month has crossed a threshold."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from schemas.base import Event, Moment, Month, WorkspaceId
from schemas.money import Usd


class WorkspaceSpend(Event):
    """What the ledger says a workspace has spent in a month, said after each batch that changed it."""

    ce_type: ClassVar[str] = "ai.spend"

    schema_version: Literal[1] = 1
    workspace_id: WorkspaceId
    month: Month
    spent: Usd


class BudgetAlert(Event):
    """Once per workspace, month and threshold. `kind` is `ai.budget.exceeded` at 100 % and above."""

    ce_type: ClassVar[str] = "ai.budget.alert"

    schema_version: Literal[1] = 1
    kind: Literal["ai.budget.alert", "ai.budget.exceeded"]
    workspace_id: WorkspaceId
    month: Month
    threshold: int = Field(ge=1, description="percent of the budget")
    spent: Usd
    budget: Usd
    percent: float
    observed_at: Moment

    @property
    def event_id(self) -> str:
        return f"{self.workspace_id}/{self.month}/{self.threshold}"
