"""Budgets: what a workspace may spend in a month, and how it stands.

Both live on compacted topics, and the newest record of a key counts. A record without a value takes a workspace back to
what the settings say.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field

from schemas.base import Event, Moment, Month, WorkspaceId
from schemas.money import Usd


class BudgetAction(StrEnum):
    """What happens to a request for which a month's budget has no room."""

    #: It goes on; the alerts tell.
    ALERT = "alert"
    #: It is rejected, with a response that says what is left.
    REFUSE = "refuse"


def _is_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name:.64} is no time zone like Europe/Vienna") from None
    return name


#: A name of the IANA time zone database.
TimeZone = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_is_zone)]
#: A percentage of the budget at which an alert goes out.
Threshold = Annotated[int, Field(ge=1, le=1_000)]


class BudgetChange(Event):
    """A workspace's budget, on `ai.budgets`. Key: the workspace. What is absent is as in the settings."""

    ce_type: ClassVar[str] = "ai.budget.set"

    schema_version: Literal[1] = 1
    workspace_id: WorkspaceId
    amount: Annotated[Usd, Field(gt=0)] | None = Field(default=None, description="US dollars for a month")
    thresholds: tuple[Threshold, ...] | None = Field(default=None, max_length=32)
    action: BudgetAction | None = None
    time_zone: TimeZone | None = None

    @property
    def key(self) -> str:
        return self.workspace_id


class BudgetState(Event):
    """How a workspace's month stands, on `ai.budget.state`, said within seconds of a change.

    Key: `workspace/month`. Money is in US dollars. `spent` is what the attempts of the month's requests have cost, each
    counted once, as in the ledger; `reserved` what the requests that are not answered yet may cost at most.
    """

    ce_type: ClassVar[str] = "ai.budget.state"

    schema_version: Literal[1] = 1
    workspace_id: WorkspaceId
    month: Month
    limit: Usd
    action: BudgetAction
    spent: Usd
    reserved: Usd
    open_requests: int = Field(ge=0, description="requests that hold a reservation")
    at: Moment

    @property
    def key(self) -> str:
        return f"{self.workspace_id}/{self.month}"
