"""What the client, the door and the commands tell of a trace, by the OpenTelemetry API alone.

An application that has set up its own SDK gets these spans among its own. Where nobody has, the context that the
application or a `traceparent` gave goes with the request as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.trace import Span, SpanKind, Tracer, get_tracer, set_span_in_context

from app.tracing import names
from app.tracing.context import attached, below, read, write
from app.tracing.messaging import consumer_attributes, fail, place_attributes, producer_attributes
from schemas.codec import Headers, header
from streams.tracing import TRACEPARENT, with_traceparent


def _tracer() -> Tracer:
    """Asked for each time: the application may set up its SDK after it has imported this."""
    return get_tracer("spillway")


class Publishing:
    """A request that is being published. `headers` are those that it goes with."""

    def __init__(self, span: Span, headers: Headers) -> None:
        self._span = span
        context = span.get_span_context()
        self.headers = with_traceparent(headers, *write(context)) if context.is_valid else headers

    def placed(self, place: Any) -> None:
        """The broker has it, there."""
        self._span.set_attributes(place_attributes(place.partition, place.offset))


@contextmanager
def publishing(
    topic: str, value: bytes, headers: Headers, request_id: str, workspace_id: str | None
) -> Iterator[Publishing]:
    """Publish a request in the block, below its own `traceparent`, or else below the current span."""
    told = _context(headers)
    attributes = producer_attributes(topic, value, request_id)
    attributes[names.REQUEST_ID] = request_id
    if workspace_id is not None:
        attributes[names.WORKSPACE] = workspace_id
    span = _tracer().start_span(f"send {topic}", below(told) if told.is_valid else None, SpanKind.PRODUCER, attributes)
    try:
        yield Publishing(span, headers)
    except BaseException as error:
        fail(span, type(error).__name__)
        raise
    finally:
        span.end()


def received(record: Any) -> None:
    """The reply that was waited for is here: the end of the request's way."""
    told = _context(record.headers)
    if told.is_valid and told.trace_flags.sampled:
        attributes = consumer_attributes("receive", record.topic, record.partition, record.offset, None)
        _tracer().start_span(f"receive {record.topic}", below(told), SpanKind.CONSUMER, attributes).end()


class Serving:
    """An HTTP request that is being answered."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def answered(self, status: int) -> None:
        self._span.set_attribute(names.HTTP_STATUS, status)
        if status >= 500:  # noqa: PLR2004 - from here on it is the server's fault
            fail(self._span, str(status))


@contextmanager
def serving(method: str, route: str, traceparent: str | None) -> Iterator[Serving]:
    """Answer an HTTP request in the block, as a part of the trace that it names."""
    told = read(traceparent)
    attributes = {names.HTTP_METHOD: method, names.HTTP_ROUTE: route}
    span = _tracer().start_span(f"{method} {route}", below(told), SpanKind.SERVER, attributes)
    try:
        with attached(set_span_in_context(span)):
            yield Serving(span)
    finally:
        span.end()


def _context(headers: Any) -> Any:
    told = header(headers, TRACEPARENT)
    state = header(headers, "tracestate")
    return read(*(value.decode("ascii", errors="replace") if value else None for value in (told, state)))
