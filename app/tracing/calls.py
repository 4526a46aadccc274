"""A provider's call by OpenTelemetry's GenAI conventions: ids, models and counts, nothing of what was said."""

from __future__ import annotations

from opentelemetry.trace import Span

from app.tracing import names
from app.tracing.messaging import Attributes, fail
from streams.tracing import CallBegun, CallEnded


def call_attributes(begun: CallBegun) -> Attributes:
    """What is known before the call."""
    known: dict[str, str | int | float | bool | None] = {
        names.GEN_AI_OPERATION: names.OPERATIONS.get(begun.kind, begun.kind),
        names.GEN_AI_PROVIDER: names.PROVIDERS.get(begun.provider, begun.provider),
        names.REQUEST_MODEL: begun.model,
        names.REQUEST_MAX_TOKENS: begun.max_tokens,
        names.REQUEST_STREAM: begun.is_streamed or None,
        names.PROVIDER: begun.provider,
        names.LANE: begun.lane,
        names.ATTEMPT: begun.attempt,
    }
    return {name: value for name, value in known.items() if value is not None}


class OneCall:
    """The span of one call. As a context it ends with the block, also where the call is cancelled."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> OneCall:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            fail(self._span, kind.__name__)
        self._span.end()

    def ended(self, end: CallEnded) -> None:
        """What came of it."""
        span = self._span
        if not span.is_recording():
            return
        if end.model:
            span.set_attribute(names.RESPONSE_MODEL, end.model)
        if end.finish_reason:
            span.set_attribute(names.FINISH_REASONS, [end.finish_reason])
        if end.first_chunk is not None:
            span.set_attribute(names.FIRST_CHUNK, end.first_chunk)
        if end.tokens is not None:
            span.set_attribute(names.INPUT_TOKENS, end.tokens.prompt_tokens)
            span.set_attribute(names.OUTPUT_TOKENS, end.tokens.completion_tokens)
            span.set_attribute(names.CACHED_TOKENS, end.tokens.cached_tokens)
            span.set_attribute(names.REASONING_TOKENS, end.tokens.reasoning_tokens)
        if end.in_doubt:
            span.set_attribute(names.IN_DOUBT, True)
        if end.error is not None:
            fail(span, end.error)
