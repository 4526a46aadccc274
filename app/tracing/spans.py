"""The stages' spans. See streams/tracing.py for what each word means."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any

from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    Span,
    SpanContext,
    SpanKind,
    Tracer,
    get_current_span,
    set_span_in_context,
)

from app.tracing import names
from app.tracing.calls import OneCall, call_attributes
from app.tracing.context import EMPTY, attached, below, here, read, write
from app.tracing.messaging import consumer_attributes, end_sending, fail, producer_attributes
from schemas.chunk import Chunk
from schemas.codec import Headers, header
from streams.records import Record
from streams.runtime.errors import AbandonedError
from streams.runtime.incoming import Incoming
from streams.topology import DEAD_LETTERS, REQUESTS
from streams.tracing import TRACEPARENT, CallBegun, CallSpan, Fact, now, traceparent_in, with_traceparent

_CHUNK = Chunk.ce_type.encode()


def nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


class StageTraces:
    """Implements streams.tracing.Traces. `group` is the consumer group of the stages, `sinks` that of the ledger's.

    A trace that is not sampled has no spans, and its context goes from record to record as it came: what was decided
    once holds. A request that comes without any begins a trace at its admission.
    """

    def __init__(self, tracer: Tracer, group: str, sinks: str) -> None:
        self._tracer = tracer
        self._group = group
        self._sinks = sinks

    @contextmanager
    def processing(self, incoming: Incoming) -> Iterator[None]:
        parent = _context_of(incoming.headers, incoming.value)
        if parent.is_valid and not parent.trace_flags.sampled:
            with attached(below(parent)):
                yield
            return
        if not parent.is_valid and incoming.topic != REQUESTS:
            # Always a context of its own: a task inherits that of whoever has woken it.
            with attached(EMPTY):
                yield
            return
        span = self._begin_processing(incoming, parent)
        try:
            with attached(set_span_in_context(span, EMPTY)):
                yield
        except AbandonedError:
            span.set_attribute(names.ABANDONED, True)
            raise
        finally:
            span.end()

    def _begin_processing(self, incoming: Incoming, parent: SpanContext) -> Span:
        attributes = consumer_attributes("process", incoming.topic, incoming.partition, incoming.offset, self._group)
        attributes[names.BODY_SIZE] = len(incoming.value or b"")
        attributes[names.QUEUED] = max(now() - incoming.timestamp / 1000, 0.0)
        name = f"process {incoming.topic}"
        return self._tracer.start_span(name, below(parent), SpanKind.CONSUMER, attributes)

    def about(self, workspace_id: str, request_id: str, **facts: Fact) -> None:
        span = get_current_span()
        if span.is_recording():
            told = {names.own(name): value for name, value in facts.items() if value is not None}
            span.set_attributes({names.WORKSPACE: workspace_id, names.REQUEST_ID: request_id, **told})

    def here(self, told: str | None) -> str | None:
        current = here()
        return write(current)[0] if current.is_valid else told

    def follows(self, other: str | None) -> None:
        leader = read(other)
        if leader.is_valid:
            get_current_span().add_link(leader)

    def waited(self, incoming: Incoming, lane: str) -> None:
        """Beside the span of its processing, which begins when the waiting is over."""
        if get_current_span().is_recording():
            parent = below(_context_of(incoming.headers, incoming.value))
            since = nanoseconds(min(incoming.timestamp / 1000, now()))
            self._tracer.start_span(f"wait {lane}", parent, attributes={names.LANE: lane}, start_time=since).end()

    @contextmanager
    def waiting(self, lane: str) -> Iterator[None]:
        if not here().trace_flags.sampled:
            yield
            return
        span = self._tracer.start_span(f"wait {lane}", attributes={names.LANE: lane})
        try:
            yield
        finally:
            span.end()

    def calling(self, begun: CallBegun) -> AbstractContextManager[CallSpan]:
        """It is not made the current span: no SDK of a provider shall continue it."""
        current = here()
        if not current.trace_flags.sampled:
            return OneCall(INVALID_SPAN)
        attributes = call_attributes(begun)
        name = f"{attributes[names.GEN_AI_OPERATION]} {begun.model}"
        return OneCall(self._tracer.start_span(name, below(current), SpanKind.CLIENT, attributes))

    def sending(self, record: Record) -> OneSending | None:
        """A record that carries another trace than the one of this stage, as the answer to somebody who waited for
        this request, stays in its own, and is linked.
        """
        of_no_request = not record.headers and record.topic != REQUESTS
        if of_no_request or record.topic == DEAD_LETTERS:
            return None
        current = here()
        if not current.trace_flags.sampled and _is_of(record.headers, current):
            return None
        own = read(_text(record.headers, TRACEPARENT))
        foreign = own.is_valid and own.trace_id != current.trace_id
        parent = own if foreign else current
        if not parent.is_valid or (foreign and not own.trace_flags.sampled):
            return None
        if not parent.trace_flags.sampled or header(record.headers, "ce_type") == _CHUNK:
            return OneSending(_carrying(record, parent), None)
        links = [Link(current)] if foreign and current.trace_flags.sampled else []
        return self._begin_sending(record, parent, links)

    def _begin_sending(self, record: Record, parent: SpanContext, links: Sequence[Link]) -> OneSending:
        attributes = producer_attributes(record.topic, record.value, _text(record.headers, "ce_id"))
        name = f"send {record.topic}"
        span = self._tracer.start_span(name, below(parent), SpanKind.PRODUCER, attributes, links=links)
        return OneSending(_carrying(record, span.get_span_context()), span)

    def buried(self, code: str) -> None:
        fail(get_current_span(), code)

    def stored(self, records: Sequence[Any], since: float) -> None:
        """A span for each record in its own trace: the row of a request is where the request is looked for."""
        begun = nanoseconds(since)
        for record in records:
            if (parent := _sampled_context(record.headers)) is not None:
                attributes = consumer_attributes("process", record.topic, record.partition, record.offset, self._sinks)
                attributes[names.BATCH] = len(records)
                name = f"process {record.topic}"
                kind = SpanKind.CONSUMER
                self._tracer.start_span(name, below(parent), kind, attributes, start_time=begun).end()


class OneSending:
    """Implements streams.tracing.Sending."""

    def __init__(self, record: Record, span: Span | None) -> None:
        self.record = record
        self._span = span

    def __enter__(self) -> OneSending:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._span is not None and kind is not None:
            fail(self._span, kind.__name__)
            self._span.end()

    def until(self, sent: Future[Any]) -> None:
        if self._span is not None:
            sent.add_done_callback(self._sent)

    def _sent(self, sent: Future[Any]) -> None:
        if self._span is not None:
            end_sending(self._span, sent)


def _context_of(headers: Headers, value: bytes | None) -> SpanContext:
    return read(traceparent_in(headers, value), _text(headers, "tracestate"))


def _sampled_context(headers: Any) -> SpanContext | None:
    """For thousands of records: most are not sampled, which the last digit says."""
    told = next((value for name, value in reversed(headers or ()) if name == TRACEPARENT), None)
    if told is None or told[-1:] not in b"13579bdf":
        return None
    parent = read(told.decode("ascii", errors="replace"))
    return parent if parent.is_valid else None


def _is_of(headers: Headers, span: SpanContext) -> bool:
    """Whether the headers carry this trace already: then there is nothing to be done where it is not sampled."""
    told = next((value for name, value in reversed(headers) if name == TRACEPARENT), None)
    return (told or b"")[3:35] == b"%032x" % span.trace_id


def _carrying(record: Record, span: SpanContext) -> Record:
    return replace(record, headers=with_traceparent(record.headers, *write(span)))


def _text(headers: Headers, name: str) -> str | None:
    value = header(headers, name)
    return value.decode("utf-8", errors="replace") if value else None
