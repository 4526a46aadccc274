"""Spans kept in memory, and records as the stages see them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.tracing.setup import make_provider
from app.tracing.spans import StageTraces
from schemas.codec import Headers
from streams.runtime.incoming import Incoming

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
OTHER = "00-11111111111111111111111111111111-2222222222222222-01"


@dataclass
class Recorder:
    """A provider whose spans can be looked at."""

    rate: float = 1.0
    kept: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    provider: TracerProvider = field(init=False)

    def __post_init__(self) -> None:
        self.provider = make_provider(self.rate, "test")
        self.provider.add_span_processor(SimpleSpanProcessor(self.kept))

    @property
    def traces(self) -> StageTraces:
        return StageTraces(self.provider.get_tracer("test"), "spillway", "spillway-ledger")

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.kept.get_finished_spans()

    @property
    def span(self) -> ReadableSpan:
        [found] = self.spans
        return found


def told(*pairs: tuple[str, str]) -> Headers:
    return tuple((name, value.encode()) for name, value in pairs)


def incoming(topic: str = "ai.requests", traceparent: str | None = None, value: bytes = b"{}", **more: Any) -> Incoming:
    headers = told(("traceparent", traceparent)) if traceparent else ()
    fields: dict[str, Any] = {"partition": 3, "offset": 42, "timestamp": 1_767_225_600_000, "key": b"acme", **more}
    return Incoming(topic=topic, value=value, headers=fields.pop("headers", headers), **fields)


def hexadecimal(span: ReadableSpan) -> tuple[str, str, str]:
    """Trace, span and parent; an empty parent is a root's."""
    context = span.get_span_context()
    assert context is not None
    parent = f"{span.parent.span_id:016x}" if span.parent else ""
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", parent
