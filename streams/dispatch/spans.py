"""A provider's call as it is traced: the facts of an attempt and of its result, without anything that they say."""

from __future__ import annotations

from collections.abc import Awaitable

from schemas.request import CompletionRequest
from streams.dispatch.chunks import ChunkStream
from streams.dispatch.decide import Attempt
from streams.dispatch.ports import Answer, Failure
from streams.tokens import LARGEST_ANSWER
from streams.tracing import CallBegun, CallEnded, Traces


async def traced(
    traces: Traces, attempt: Attempt, chunks: ChunkStream | None, calling: Awaitable[Answer | Failure]
) -> Answer | Failure:
    """The call's result, with a span from its beginning to its end."""
    with traces.calling(_begun(attempt, is_streamed=chunks is not None)) as span:
        result = await calling
        span.ended(_ended(attempt, result, chunks))
    return result


def _begun(attempt: Attempt, *, is_streamed: bool) -> CallBegun:
    request = attempt.command.admitted.request
    return CallBegun(
        provider=attempt.command.provider,
        kind=request.kind,
        model=attempt.model,
        lane=attempt.lane,
        attempt=attempt.number,
        max_tokens=min(request.max_tokens, LARGEST_ANSWER) if isinstance(request, CompletionRequest) else None,
        is_streamed=is_streamed,
    )


def _ended(attempt: Attempt, result: Answer | Failure, chunks: ChunkStream | None) -> CallEnded:
    first_at = chunks.first_at if chunks is not None else None
    first_chunk = max((first_at - attempt.started_at).total_seconds(), 0.0) if first_at is not None else None
    if isinstance(result, Answer):
        return CallEnded(result.model, result.finish_reason, result.tokens, first_chunk=first_chunk)
    return CallEnded(tokens=result.tokens, error=result.code, in_doubt=result.may_be_billed, first_chunk=first_chunk)
