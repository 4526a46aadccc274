"""The AI request: what an application publishes to `ai.requests`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.base import DEFAULT_WORKSPACE, Event, Moment, Month, Priority, RequestId, WorkspaceId

ProviderName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
Kind = Literal["completion", "embedding", "search"]
#: Of a request that names none.
DEFAULT_TEMPERATURE = 0.7


class Part(BaseModel):
    """Fields inside an event: unknown ones are ignored, as in the event itself."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Message(Part):
    """One turn of a conversation. Content is text, or a list of typed parts as the providers take them."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]]
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class CacheOptions(Part):
    """How the cache may serve this request. `ttl` is in seconds."""

    enabled: bool = True
    key: str | None = Field(default=None, max_length=512)
    ttl: int | None = Field(default=None, ge=1)


class CommonRequest(Event):
    """What every kind of request may say."""

    ce_type: ClassVar[str] = "ai.request"

    schema_version: Literal[1] = 1
    kind: Kind
    request_id: RequestId | None = None
    workspace_id: WorkspaceId = DEFAULT_WORKSPACE
    user_id: str | None = Field(default=None, max_length=256)
    purpose: str | None = Field(default=None, max_length=256)
    preferred_providers: tuple[ProviderName, ...] | None = None
    model: str | None = Field(default=None, min_length=1, max_length=256)
    cache: CacheOptions = CacheOptions()
    priority: Priority = Priority.NORMAL
    deadline: Moment | None = None
    reply_to: str | None = Field(default=None, min_length=1, max_length=249)
    metadata: dict[str, str] = Field(default_factory=dict, max_length=64)
    provider_options: dict[ProviderName, dict[str, Any]] = Field(default_factory=dict)


class CompletionRequest(CommonRequest):
    """Text from a conversation. Give either `messages` or `prompt`."""

    kind: Literal["completion"] = "completion"
    messages: tuple[Message, ...] = ()
    prompt: str | None = Field(default=None, min_length=1)
    system: str | None = None
    max_tokens: int = Field(default=4096, ge=1)
    temperature: float = Field(default=DEFAULT_TEMPERATURE, ge=0, le=2)
    stop: tuple[str, ...] = Field(default=(), max_length=16)
    stream: bool = False
    response_format: dict[str, Any] | None = None
    tools: tuple[dict[str, Any], ...] = ()

    @model_validator(mode="after")
    def _has_one_input(self) -> CompletionRequest:
        if bool(self.messages) == (self.prompt is not None):
            raise ValueError("give either `messages` (at least one) or `prompt`, not both")
        return self

    def conversation(self) -> tuple[Message, ...]:
        """The messages, with a bare prompt as the one message of the user."""
        if self.prompt is not None:
            return (Message(role="user", content=self.prompt),)
        return self.messages


class EmbeddingRequest(CommonRequest):
    """Vectors for one text or several."""

    kind: Literal["embedding"]
    input: str | tuple[str, ...]
    dimensions: int | None = Field(default=None, ge=1)
    encoding_format: Literal["float", "base64"] = "float"


class SearchRequest(CommonRequest):
    """A web search with citations."""

    kind: Literal["search"]
    query: str = Field(min_length=1)
    domains_include: tuple[str, ...] = ()
    domains_exclude: tuple[str, ...] = ()
    recency: Literal["hour", "day", "week", "month", "year"] | None = None
    return_images: bool = False
    return_related_questions: bool = False


Request = Annotated[CompletionRequest | EmbeddingRequest | SearchRequest, Field(discriminator="kind")]

KINDS: dict[str, type[CommonRequest]] = {
    "completion": CompletionRequest,
    "embedding": EmbeddingRequest,
    "search": SearchRequest,
}


class ReplyAddress(Part):
    """Where a request's own answer goes, and in which dialect it is answered.

    `correlation_id` is kept as text; `binary_correlation` says that it is hexadecimal for bytes that are none.
    """

    topic: str
    partition: int | None = None
    correlation_id: str | None = None
    binary_correlation: bool = False
    dialect: Literal["spillway", "spring", "faststream", "faust"] = "spillway"


class AdmittedRequest(Part):
    """A request after admission: its id, deadline and reply address are settled.

    `month` is the one whose budget it counts in: that of its admission, in the workspace's time zone. `guarded` says
    that this budget refuses: after an attempt that may have been billed there may be no room for another one, and
    settlement has to be asked.
    """

    request: Request
    request_id: RequestId
    workspace_id: WorkspaceId
    admitted_at: Moment
    deadline: Moment
    reply: ReplyAddress | None = None
    traceparent: str | None = None
    month: Month | None = None
    guarded: bool = False

    @property
    def budget_month(self) -> Month:
        """`month`, or that of the admission in UTC for a request that was admitted before there was one."""
        return self.month or f"{self.admitted_at:%Y-%m}"

    def expired(self, now: datetime) -> bool:
        return now >= self.deadline
