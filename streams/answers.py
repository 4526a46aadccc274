"""Terminal responses that hold no provider's answer: rejected, expired, failed."""

from __future__ import annotations

from datetime import datetime

from schemas.request import AdmittedRequest
from schemas.response import AttemptSummary, Error, Response, Status, Usage

#: What the requester reads of a request that was cancelled.
CANCELLED = "The request was cancelled."


def total_cost_only(attempts: tuple[AttemptSummary, ...]) -> Usage:
    """What failed attempts cost: money without tokens, because no answer told them."""
    return Usage(cost=sum((attempt.cost for attempt in attempts), start=Usage().cost))


def unanswered(
    admitted: AdmittedRequest,
    status: Status,
    error: Error,
    *,
    attempts: tuple[AttemptSummary, ...] = (),
    now: datetime,
) -> Response:
    """The terminal response of an admitted request that got no answer."""
    return Response(
        request_id=admitted.request_id,
        workspace_id=admitted.workspace_id,
        kind=admitted.request.kind,
        status=status,
        usage=total_cost_only(attempts),
        latency=max((now - admitted.admitted_at).total_seconds(), 0.0),
        attempts=attempts,
        error=error,
        metadata=admitted.request.metadata,
        user_id=admitted.request.user_id,
        purpose=admitted.request.purpose,
        requested_at=admitted.admitted_at,
        month=admitted.month,
        answered_at=now,
    )


def expired(admitted: AdmittedRequest, attempts: tuple[AttemptSummary, ...], now: datetime) -> Response:
    """The deadline has passed before an answer was there."""
    error = Error(
        code="deadline_exceeded",
        message=f"The deadline {admitted.deadline.isoformat()} passed before a provider answered.",
        retryable=True,
    )
    return unanswered(admitted, Status.EXPIRED, error, attempts=attempts, now=now)


def cancelled(admitted: AdmittedRequest, attempts: tuple[AttemptSummary, ...], now: datetime) -> Response:
    """Nobody wants the answer any more."""
    error = Error(code="cancelled", message=CANCELLED)
    return unanswered(admitted, Status.FAILED, error, attempts=attempts, now=now)


def all_failed(
    admitted: AdmittedRequest, attempts: tuple[AttemptSummary, ...], now: datetime, last: Error | None = None
) -> Response:
    """Nothing is left to try. `last` is why, where it was not the last attempt."""
    last = last or next((a.error for a in reversed(attempts) if a.error), None)
    told = last.message if last else "no provider could be tried"
    error = Error(
        code="all_providers_failed",
        message=f"All AI providers failed. Last error: {told}",
        retryable=last.retryable if last else True,
    )
    return unanswered(admitted, Status.FAILED, error, attempts=attempts, now=now)
