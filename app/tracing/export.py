"""The way to the collector. It may be away for long: that is told once, and not with every batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

log = logging.getLogger(__name__)


class OneWarning(SpanExporter):
    """OTLP over HTTP, in the SDK's own thread. What cannot be sent is dropped: no request waits for its trace."""

    def __init__(self, endpoint: str, exporter: SpanExporter | None = None) -> None:
        self._exporter = exporter or OTLPSpanExporter(endpoint=endpoint)
        self._is_lost = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        lost = result is not SpanExportResult.SUCCESS
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
