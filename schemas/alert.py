"""Alerts about money: a month's cost has crossed a threshold, or an hour costs far more than a workspace's hours do."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, TypeAdapter, ValidationError

from schemas.base import Event, Moment, Month, WorkspaceId
from schemas.codec import UndecodableError, explain
from schemas.money import Usd


class WorkspaceSpend(Event):
    """What the ledger says a workspace has spent in a month, said after each batch that changed it."""

    ce_type: ClassVar[str] = "ai.spend"

    schema_version: Literal[1] = 1
    workspace_id: WorkspaceId
    month: Month
    spent: Usd


class BudgetTouched(Event):
    """A workspace's budget has changed: what was said last of the month is to be judged by the new one."""

    ce_type: ClassVar[str] = "ai.budget.touched"

    schema_version: Literal[1] = 1
    workspace_id: WorkspaceId
    month: Month


class BudgetAlert(Event):
    """Once per workspace, month and threshold. `kind` is `ai.budget.exceeded` at 100 % and above."""

    ce_type: ClassVar[str] = "ai.budget.alert"

    schema_version: Literal[1] = 1
    kind: Literal["ai.budget.alert", "ai.budget.exceeded"]
    workspace_id: WorkspaceId
    month: Month
    threshold: int = Field(ge=1, description="percent of the budget")
    occurrence: int = Field(
        default=1, ge=1, description="one more after the budget was raised, and the threshold crossed again"
    )
    spent: Usd
    budget: Usd
    percent: float
    forecast: Usd | None = Field(default=None, description="US dollars at the end of the month, at the pace so far")
    observed_at: Moment

    @property
    def event_id(self) -> str:
        name = f"{self.workspace_id}/{self.month}/{self.threshold}"
        return name if self.occurrence == 1 else f"{name}/{self.occurrence}"


class SpendAnomaly(Event):
    """An hour far above the workspace's habit, once per workspace and hour. Money is in US dollars."""

    ce_type: ClassVar[str] = "ai.budget.anomaly"

    schema_version: Literal[1] = 1
    kind: Literal["ai.budget.anomaly"] = "ai.budget.anomaly"
    workspace_id: WorkspaceId
    month: Month
    hour: Moment = Field(description="when the hour began")
    spent: Usd = Field(description="in this hour, up to `observed_at`")
    usual: Usd = Field(description="the mean of the workspace's last hours with spend")
    budget: Usd
    observed_at: Moment

    @property
    def event_id(self) -> str:
        return f"{self.workspace_id}/{self.hour:%Y-%m-%dT%H}/anomaly"


#: What is on `ai.budget.alerts`.
Alert = BudgetAlert | SpendAnomaly

_ALERTS: TypeAdapter[Alert] = TypeAdapter(Annotated[Alert, Field(discriminator="kind")])


def read_alert(value: bytes | None) -> Alert:
    """The alert in a record of `ai.budget.alerts`. Raises UndecodableError."""
    try:
        return _ALERTS.validate_json(value or b"")
    except ValidationError as error:
        raise UndecodableError("invalid_event", explain(error)) from None
