"""The cancellation: whoever asked does not want the answer any more. Published to `ai.cancellations`."""

from __future__ import annotations

from typing import ClassVar, Literal

from schemas.base import DEFAULT_WORKSPACE, Event, RequestId, WorkspaceId


class Cancellation(Event):
    """Drops a request that waits, and closes its stream or its call if it runs. Key: the workspace."""

    ce_type: ClassVar[str] = "ai.cancellation"

    schema_version: Literal[1] = 1
    request_id: RequestId
    workspace_id: WorkspaceId = DEFAULT_WORKSPACE
