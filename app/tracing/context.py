"""Trace contexts: read from a `traceparent`, written into one, and made the current one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from opentelemetry import context
from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    NonRecordingSpan,
    SpanContext,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from streams.tracing import LONGEST_CONTEXT

_W3C = TraceContextTextMapPropagator()
#: Nobody's: what begins in it is a trace of its own.
EMPTY = Context()


def read(traceparent: str | None, tracestate: str | None = None) -> SpanContext:
    """The context that was sent; an invalid one where there is none, or none that can be read."""
    if not traceparent or len(traceparent) > LONGEST_CONTEXT:
        return INVALID_SPAN_CONTEXT
    return _read(traceparent, tracestate if tracestate and len(tracestate) <= LONGEST_CONTEXT else None)


@lru_cache(maxsize=4_096)
def _read(traceparent: str, tracestate: str | None) -> SpanContext:
    """Several records of a request carry the same one; reading it is what tracing costs where nothing is sampled."""
    carrier = {"traceparent": traceparent, **({"tracestate": tracestate} if tracestate else {})}
    return get_current_span(_W3C.extract(carrier, EMPTY)).get_span_context()


def write(span: SpanContext) -> tuple[str, str]:
    """Its `traceparent`, and its `tracestate`, which may be empty."""
    told = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
    return told, span.trace_state.to_header() if span.trace_state else ""


def below(span: SpanContext) -> Context:
    """The context in which a span is this one's child; EMPTY for an invalid one."""
    return set_span_in_context(NonRecordingSpan(span), EMPTY) if span.is_valid else EMPTY


def here() -> SpanContext:
    """The current context, which may be invalid."""
    return get_current_span().get_span_context()


@contextmanager
def attached(to: Context) -> Iterator[None]:
    """Make a context the current one in the block, whatever was before."""
    token = context.attach(to)
    try:
        yield
    finally:
        context.detach(token)
