"""The way to the collector. It may be away for long, or too slow: that is told once, and not with every span."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from time import monotonic

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

log = logging.getLogger(__name__)

#: How many spans wait for the collector, unless OTEL_BSP_MAX_QUEUE_SIZE says otherwise: as OpenTelemetry has it.
MOST_WAITING = 2_048
#: Seconds between two words on spans for which there was no room.
SAID_EVERY = 60.0

#: Is told why spans were dropped, and how many. Called from any thread.
Dropped = Callable[[str, int], None]


class OneWarning(SpanExporter):
    """OTLP over HTTP, in the SDK's own thread. What cannot be sent is dropped: no request waits for its trace."""

    def __init__(self, endpoint: str, dropped: Dropped, exporter: SpanExporter | None = None) -> None:
        self._exporter = exporter or OTLPSpanExporter(endpoint=endpoint)
        self._dropped = dropped
        self._is_lost = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        lost = result is not SpanExportResult.SUCCESS
        if lost:
            self._dropped("unsent", len(spans))
        if lost and not self._is_lost:
            log.warning("traces_unsent: the collector does not take them; spans are dropped until it does")
        elif self._is_lost and not lost:
            log.info("traces_sent: the collector takes them again")
        self._is_lost = lost
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class WaitingSpans(BatchSpanProcessor):
    """The SDK's queue in front of an exporter. Where it is full the oldest span goes. The SDK has no figure of that
    which could be read, so it is counted here how many have come and how many were taken.
    """

    def __init__(self, exporter: SpanExporter, dropped: Dropped, clock: Callable[[], float] = monotonic) -> None:
        self._most = most_waiting()
        self._dropped = dropped
        self._clock = clock
        self._counting = threading.Lock()
        self._waiting = 0
        self._unsaid = 0
        self._said_at = -SAID_EVERY
        super().__init__(_Taking(exporter, self._taken), max_queue_size=self._most)

    def on_end(self, span: ReadableSpan) -> None:
        context = span.get_span_context()
        if context is not None and context.trace_flags.sampled:
            self._came()
        super().on_end(span)

    def _came(self) -> None:
        with self._counting:
            if self._waiting < self._most:
                self._waiting += 1
                return
            self._unsaid += 1
            now = self._clock()
            unsaid = self._unsaid if now - self._said_at >= SAID_EVERY else 0
            if unsaid:
                self._unsaid, self._said_at = 0, now
        self._dropped("queue_full", 1)
        if unsaid:
            log.warning(
                "traces_dropped: %s since the last word of it; more than %s spans wait (OTEL_BSP_MAX_QUEUE_SIZE)",
                unsaid,
                self._most,
            )

    def _taken(self, count: int) -> None:
        with self._counting:
            self._waiting -= count


class _Taking(SpanExporter):
    """Tells how many spans have left the queue."""

    def __init__(self, exporter: SpanExporter, taken: Callable[[int], None]) -> None:
        self._exporter = exporter
        self._taken = taken

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._taken(len(spans))
        return self._exporter.export(spans)

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def most_waiting() -> int:
    """The size of the queue, read as the SDK reads it: what is no number is passed over."""
    try:
        return int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE", MOST_WAITING))
    except ValueError:
        return MOST_WAITING
