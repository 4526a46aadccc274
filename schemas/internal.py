"""Events between Spillway's own stages. They are versioned like the public ones, but nobody else should read them."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Literal

from schemas.base import Event, Moment, RequestId, WorkspaceId
from schemas.chunk import Chunk
from schemas.request import AdmittedRequest, ProviderName, ReplyAddress
from schemas.response import AttemptSummary, Response
from schemas.usage import UsageEvent


class DispatchCommand(Event):
    """Asks a lane to answer a request. Its next attempt has the number `len(attempts) + 1`."""

    ce_type: ClassVar[str] = "ai.internal.dispatch"

    schema_version: Literal[1] = 1
    admitted: AdmittedRequest
    #: Providers still to be tried; the first is the one whose topic this command is on.
    route: tuple[ProviderName, ...]
    attempts: tuple[AttemptSummary, ...] = ()
    #: Before which the next attempt must not be made: the wait of a retry that settlement had to agree to.
    not_before: Moment | None = None
    #: Providers that have passed the request on without a call, since it went back the last time.
    passed_by: tuple[ProviderName, ...] = ()
    #: How often it has gone back to those.
    returns: int = 0

    @property
    def provider(self) -> ProviderName:
        return self.route[0]

    @property
    def next_attempt(self) -> int:
        return len(self.attempts) + 1


class Follow(StrEnum):
    """What comes after an attempt."""

    #: The request is answered: `AttemptReport.response` holds the answer.
    ANSWER = "answer"
    #: Another lane or attempt goes on: `AttemptReport.command` says which.
    FORWARD = "forward"
    #: The lane that reports it tries again by itself.
    RETRY = "retry"
    #: A mark was found whose owner is gone: only settle knows whether that attempt was reported.
    INTERRUPTED = "interrupted"


class AttemptReport(Event):
    """What became of one attempt: usage, and the follow-up, in one record, so that neither can be lost alone."""

    ce_type: ClassVar[str] = "ai.internal.attempt"

    schema_version: Literal[1] = 1
    request_id: RequestId
    workspace_id: WorkspaceId
    follow: Follow
    #: Missing when no call was made (expired while it waited, nothing left to try).
    usage: UsageEvent | None = None
    #: With ANSWER.
    response: Response | None = None
    #: With FORWARD, RETRY and INTERRUPTED: the request as it goes on.
    command: DispatchCommand | None = None
    reply: ReplyAddress | None = None
    #: With ANSWER: what a worker that may have been taken for dead has not told of a streamed answer.
    rest: Chunk | None = None
    traceparent: str | None = None
