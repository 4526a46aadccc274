"""Traces switched on: where spans go, which ones are made, and how a process ends without waiting for a collector."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import trace

from app.settings import Settings, SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

log = logging.getLogger(__name__)

#: Seconds that the end of a process may be put off for its last spans.
LAST_WORDS = 2.0
#: Characters of an attribute: an id that somebody else has chosen may be long.
LONGEST_ATTRIBUTE = 256
#: Where the OTLP exporter finds its collector; SIGNAL names the address itself, the other one that of all signals.
SIGNAL, ALL_SIGNALS = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
PATH = "/v1/traces"


def endpoint_of(settings: Settings, environment: Mapping[str, str]) -> str | None:
    """The whole address that spans are posted to; None where nobody wants any."""
    if signal := environment.get(SIGNAL):
        return settings.trace_endpoint.rstrip("/") + PATH if settings.trace_endpoint else signal
    base = settings.trace_endpoint or environment.get(ALL_SIGNALS)
    return base.rstrip("/") + PATH if base else None


class Tracing:
    """The spans of one process on their way to a collector."""

    def __init__(self, provider: TracerProvider, processor: SpanProcessor) -> None:
        self.provider = provider
        self._processor = processor

    def tracer(self) -> trace.Tracer:
        return self.provider.get_tracer("spillway")

    def close(self) -> None:
        """Send what is left, for `LAST_WORDS` seconds at most: a collector that is away holds up no stop."""
        closing = threading.Thread(target=self._processor.shutdown, name="last-spans", daemon=True)
        closing.start()
        closing.join(LAST_WORDS)


def nobody_counts(reason: str, count: int) -> None:
    """Spans were dropped, and there is no metric of it."""


def start_tracing(
    settings: Settings, service: str, dropped: Callable[[str, int], None] = nobody_counts
) -> Tracing | None:
    """Tracing as the settings say; None where it is off. `service` is the process's name where OTEL_SERVICE_NAME is not
    set; `dropped` is told why spans were dropped, and how many. Raises SettingsError where the libraries are missing.
    """
    endpoint = endpoint_of(settings, os.environ)
    if endpoint is None or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    try:
        from app.tracing.export import OneWarning, WaitingSpans  # noqa: PLC0415 - an extra, and not always needed
    except ImportError:
        raise SettingsError(
            "AI_TRACE_ENDPOINT: traces need libraries that are not installed here: pip install 'spillway[traces]'"
        ) from None
    processor = WaitingSpans(OneWarning(endpoint, dropped), dropped)
    provider = make_provider(settings.trace_sampling_rate, service)
    provider.add_span_processor(processor)
    log.info("tracing: %s of the requests that come without a trace", f"{settings.trace_sampling_rate:g}")
    return Tracing(provider, processor)


def make_provider(rate: float, service: str) -> TracerProvider:
    """Whoever sends a trace has decided whether it is sampled; of all others this share is."""
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415

    limits = SpanLimits(max_span_attribute_length=LONGEST_ATTRIBUTE)
    return TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(rate)),
        resource=_resource(service),
        shutdown_on_exit=False,
        span_limits=limits,
    )


def _resource(service: str) -> Resource:
    from importlib.metadata import version  # noqa: PLC0415

    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415

    own = {"service.name": service, "service.version": version("spillway")}
    return Resource.create({**own, **OTELResourceDetector().detect().attributes})


@contextmanager
def tracing(settings: Settings, service: str) -> Iterator[None]:
    """For a process that uses the client: its spans have a way out while the block runs. Raises SettingsError."""
    started = start_tracing(settings, service)
    if started is None:
        yield
        return
    trace.set_tracer_provider(started.provider)
    try:
        yield
    finally:
        started.close()
