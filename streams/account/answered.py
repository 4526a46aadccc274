"""What the ledger keeps of a response: all but what it says."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from schemas.base import Event, Moment, Month, RequestId, WorkspaceId
from schemas.money import ZERO, Usd
from schemas.request import Kind, Part
from schemas.response import Response, Status


class AnsweredUsage(Part):
    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    cost: Usd = ZERO


class AnsweredError(Part):
    code: str


class AnsweredAttempt(Part):
    """Read only to be counted."""


class Answered(Event):
    """A response without its content: texts and vectors are passed over where they are read, and stored nowhere."""

    ce_type: ClassVar[str] = Response.ce_type

    request_id: RequestId
    workspace_id: WorkspaceId
    kind: Kind = "completion"
    status: Status
    provider: str | None = None
    model: str | None = None
    usage: AnsweredUsage = AnsweredUsage()
    latency: float = 0.0
    time_to_first_chunk: float | None = None
    cached: bool = False
    saved: Usd | None = None
    attempts: tuple[AnsweredAttempt, ...] = ()
    error: AnsweredError | None = None
    user_id: str | None = None
    purpose: str | None = None
    requested_at: Moment | None = None
    month: Month | None = None
    answered_at: Moment

    @property
    def budget_month(self) -> Month:
        """`month`, or that of the request (or of its answer) in UTC where none was told."""
        return self.month or f"{self.requested_at or self.answered_at:%Y-%m}"
