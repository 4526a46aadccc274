"""The chunk: a piece of an answer while it is being written, on the request's own reply topic."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from schemas.base import Event, Moment, RequestId, WorkspaceId


class Chunk(Event):
    """One piece. `index` counts from 0 within an attempt.

    The terminal response holds the whole content. Chunks of an attempt whose number is lower than another chunk's are
    void: that attempt has failed, and the later one begins anew.
    """

    ce_type: ClassVar[str] = "ai.response.chunk"

    schema_version: Literal[1] = 1
    request_id: RequestId
    workspace_id: WorkspaceId
    attempt: int = Field(ge=1)
    index: int = Field(ge=0)
    content: str = ""
    #: Pieces of calls in OpenAI's form, to be put together by their `index`.
    tool_calls: tuple[dict[str, Any], ...] = ()
    at: Moment

    @property
    def event_id(self) -> str:
        return f"{self.request_id}/{self.attempt}/{self.index}"
