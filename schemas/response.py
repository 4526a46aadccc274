"""The response: one terminal answer per request, on `ai.responses` and on the request's own reply topic."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar, Literal

from pydantic import Field

from schemas.base import Event, Moment, Month, RequestId, WorkspaceId
from schemas.money import ZERO, Usd
from schemas.request import Kind, Part, ProviderName
from schemas.usage import Outcome


class Status(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    EXPIRED = "expired"


class Usage(Part):
    """What the whole request used, over all its attempts. `cost` is in US dollars."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    search_requests: int = 0
    cost: Usd = ZERO


class Image(Part):
    """A picture that a search found. Width and height are in pixels."""

    url: str
    origin_url: str | None = None
    title: str | None = None
    width: int | None = None
    height: int | None = None


class SearchResult(Part):
    """A page that a search found. `date` is as the provider writes it."""

    url: str
    title: str | None = None
    date: str | None = None
    snippet: str | None = None


class Error(Part):
    """What went wrong, for people (`message`) and for programs (`code`, `retryable`)."""

    code: str
    message: str
    retryable: bool = False


class ResponseWarning(Part):
    """What the answer, or the request on its way to the provider, has lost, or says in other words: for programs
    (`code`) and for people (`message`).
    """

    code: str
    message: str


class AttemptSummary(Part):
    """What one attempt answered."""

    attempt: int
    provider: ProviderName
    model: str
    outcome: Outcome
    error: Error | None = None
    latency: float = 0.0
    cost: Usd = ZERO


class Response(Event):
    """The terminal answer. Its CloudEvents id is the same for each repeat, so that a receiver can drop repeats."""

    ce_type: ClassVar[str] = "ai.response"

    schema_version: Literal[1] = 1
    request_id: RequestId
    workspace_id: WorkspaceId
    kind: Kind = "completion"
    status: Status
    content: str | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()
    citations: tuple[str, ...] = ()
    #: In the order of the inputs; base64 is of little-endian float32.
    embeddings: tuple[str | tuple[float, ...], ...] = ()
    images: tuple[Image, ...] = ()
    related_questions: tuple[str, ...] = ()
    search_results: tuple[SearchResult, ...] = ()
    provider: ProviderName | None = None
    model: str | None = None
    finish_reason: str | None = None
    finish_reason_raw: str | None = Field(default=None, description="the provider's own word for `finish_reason`")
    #: What was dropped, or put in other words, on the way to the provider or back.
    warnings: tuple[ResponseWarning, ...] = ()
    usage: Usage = Usage()
    #: What the answering attempt was expected to cost at most, in US dollars, before it was called.
    estimated_cost: Usd | None = None
    latency: float = Field(default=0.0, description="seconds from admission to this answer")
    time_to_first_chunk: float | None = Field(
        default=None, description="seconds from the call to the first chunk, if the answer was streamed"
    )
    cached: bool = False
    #: What the answer would have cost if it had not come from the cache or from an identical request, in US dollars.
    saved: Usd | None = None
    attempts: tuple[AttemptSummary, ...] = ()
    error: Error | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    #: Of the request, for whoever counts responses. Absent where no request could be read.
    user_id: str | None = None
    purpose: str | None = None
    requested_at: Moment | None = Field(default=None, description="when the request was admitted")
    month: Month | None = Field(default=None, description="whose budget it counts in, in the workspace's time zone")
    answered_at: Moment

    @property
    def event_id(self) -> str:
        return f"{self.request_id}/response"
