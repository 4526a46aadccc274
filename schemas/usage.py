"""The usage event: one per attempt at a provider, however the attempt ended."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import Field

from schemas.base import Event, Moment, Month, Priority, RequestId, WorkspaceId
from schemas.money import ZERO, Usd
from schemas.request import Kind, Part, ProviderName


class Tokens(Part):
    """Token counts as the provider bills them. Cached and reasoning tokens are shares of the other two."""

    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    cached_tokens: int = Field(default=0, ge=0)
    cache_write_tokens: int = Field(default=0, ge=0)
    #: The share of the written ones that is kept for an hour, which costs more.
    cache_write_1h_tokens: int = Field(default=0, ge=0)
    reasoning_tokens: int = Field(default=0, ge=0)
    #: Web searches that the provider charges for, beside the tokens.
    search_requests: int = Field(default=0, ge=0)

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Tokens) -> Tokens:
        mine, theirs = vars(self), vars(other)
        return Tokens(**{name: count + theirs[name] for name, count in mine.items()})


class Outcome(StrEnum):
    """How one attempt ended. IN_DOUBT: it may have been billed, nobody here can know."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    IN_DOUBT = "in_doubt"


#: Where a cost comes from, best first. UNPRICED holds an estimate of zero knowledge and raises an alarm.
CostSource = Literal["reported", "computed", "estimated", "unpriced"]

_COST_RANK: dict[CostSource, int] = {"unpriced": 0, "estimated": 1, "computed": 2, "reported": 3}
#: In a version, ranks stand above this bit and the cost in nano-dollars below it.
RANK_BIT = 60


class UsageEvent(Event):
    """One attempt at one provider. `attempt_id` is `request_id/attempt` and is counted once per workspace."""

    ce_type: ClassVar[str] = "ai.usage"

    schema_version: Literal[1] = 1
    request_id: RequestId
    workspace_id: WorkspaceId
    attempt: int = Field(ge=1)
    kind: Kind = "completion"
    provider: ProviderName
    model: str
    user_id: str | None = None
    purpose: str | None = None
    outcome: Outcome
    error_code: str | None = None
    tokens: Tokens = Tokens()
    cost: Usd = ZERO
    cost_source: CostSource = "computed"
    requested_at: Moment
    started_at: Moment
    latency: float = Field(default=0.0, ge=0, description="seconds of the call")
    lane: str = ""
    priority: Priority | None = Field(default=None, description="of the request")
    month: Month | None = Field(
        default=None,
        description="the month whose budget it counts in: that of the request, in the workspace's time zone",
    )

    @property
    def attempt_id(self) -> str:
        return f"{self.request_id}/{self.attempt}"

    @property
    def budget_month(self) -> Month:
        """`month`, or that of the request in UTC where none was told."""
        return self.month or f"{self.requested_at:%Y-%m}"

    @property
    def rank(self) -> int:
        """How much this repeat of an attempt knows, 0 to 7: a known outcome beats a doubt, then the better cost."""
        known = self.outcome is not Outcome.IN_DOUBT
        return 4 * known + _COST_RANK[self.cost_source]

    @property
    def version(self) -> int:
        """The repeat with the highest version counts: by rank, and between equals the dearer one.

        A function of the event alone: whatever the order in which repeats arrive, every reader ends with the same
        figures. The dearer one, because a budget may rather be too careful than blind.
        """
        return (self.rank << RANK_BIT) + int(self.cost.scaleb(9))
