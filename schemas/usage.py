"""The usage event: one per attempt at a provider, however the attempt ended."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import Field

from schemas.base import Event, Moment, Month, Priority, RequestId, WorkspaceId
from schemas.money import ZERO, Usd
from schemas.request import Kind, Part, ProviderName

_LONGEST_TIER = 64
#: What providers call the service that costs the usual price.
_USUAL = frozenset({"default", "standard", "standard_only", "auto", "on_demand", "global", "not_available"})
_TIER = re.compile(r"[a-z0-9_-]{1,32}")


def tier_of(*words: object) -> str | None:
    """The tier of service that a provider names, out of all its words for it; None for the usual one."""
    said = (word.strip().lower() for word in words if isinstance(word, str))
    found = dict.fromkeys(word for word in said if _TIER.fullmatch(word) and word not in _USUAL)
    return "+".join(found)[:_LONGEST_TIER] or None


class Tokens(Part):
    """Token counts as the provider bills them. Cached, reasoning and audio tokens are shares of the other two."""

    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    cached_tokens: int = Field(default=0, ge=0)
    cache_write_tokens: int = Field(default=0, ge=0)
    #: The share of the written ones that is kept for an hour, which costs more.
    cache_write_1h_tokens: int = Field(default=0, ge=0)
    reasoning_tokens: int = Field(default=0, ge=0)
    #: Web searches that the provider charges for, beside the tokens.
    search_requests: int = Field(default=0, ge=0)
    audio_prompt_tokens: int = Field(default=0, ge=0)
    audio_completion_tokens: int = Field(default=0, ge=0)
    service_tier: str | None = Field(
        default=None,
        max_length=_LONGEST_TIER,
        description="the tier in which it was served, where that is not the usual one and may have another price",
    )

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Tokens) -> Tokens:
        theirs = other.counts()
        sums = {name: count + theirs[name] for name, count in self.counts().items()}
        return Tokens.model_validate({**sums, "service_tier": self.service_tier or other.service_tier})

    def counts(self) -> dict[str, int]:
        """All that is a number."""
        return {name: value for name, value in vars(self).items() if isinstance(value, int)}


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
#: The rank of an attempt whose outcome is known is this or more.
KNOWN_RANK = 4
#: More nano-dollars than the ledger holds for one attempt: from here on the versions of a rank are corrections.
_CORRECTED = 10**18
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Correction(Part):
    """That an attempt's cost was put right afterwards: when, by whom, why, and what it was. Costs in US dollars.

    A correction beats what it corrects, every repeat of that, and earlier corrections. It does not beat a repeat that
    knows more, such as the true outcome of an attempt that was in doubt.
    """

    run: str = Field(min_length=1, max_length=64, description="names all corrections that were made together")
    at: Moment
    by: str = Field(max_length=256)
    reason: str = Field(max_length=1_024)
    previous_cost: Usd
    previous_source: CostSource
    previous_rank: int = Field(ge=0, le=7, description="how much was known of what it corrects")
    original_cost: Usd = Field(description="before any correction: what its month's budget has counted")

    @property
    def revision(self) -> int:
        """Microseconds since 1970: later ones are higher."""
        return max((self.at - _EPOCH) // timedelta(microseconds=1), 0)


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
    correction: Correction | None = Field(default=None, description="the cost of an earlier record was put right")

    @property
    def attempt_id(self) -> str:
        return f"{self.request_id}/{self.attempt}"

    @property
    def event_id(self) -> str:
        """The same for each repeat; a correction has one of its own."""
        return f"{self.attempt_id}/corrected/{self.correction.revision}" if self.correction else self.attempt_id

    @property
    def budget_month(self) -> Month:
        """`month`, or that of the request in UTC where none was told."""
        return self.month or f"{self.requested_at:%Y-%m}"

    @property
    def rank(self) -> int:
        """How much this repeat of an attempt knows, 0 to 7: a known outcome beats a doubt, then the better cost."""
        known = self.outcome is not Outcome.IN_DOUBT
        rank = KNOWN_RANK * known + _COST_RANK[self.cost_source]
        return max(rank, self.correction.previous_rank) if self.correction else rank

    @property
    def version(self) -> int:
        """The repeat with the highest version counts: by rank, then the latest correction, then the dearer one.

        A function of the event alone: whatever the order in which repeats arrive, every reader ends with the same
        figures. The dearer one, because a budget may rather be too careful than blind.
        """
        if self.correction is not None:
            return (self.rank << RANK_BIT) + _CORRECTED + self.correction.revision
        return (self.rank << RANK_BIT) + int(self.cost.scaleb(9))
