"""Traces switched on and off: where they go, what is missing, and an end that waits for nobody."""

from __future__ import annotations

import builtins
import io
import json
import logging
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, http_attributes, messaging_attributes
from opentelemetry.semconv.attributes import error_attributes
from opentelemetry.semconv.attributes import http_attributes as stable_http
from prometheus_client import CollectorRegistry

from app.logging import configure_logging
from app.metrics import count_dropped_spans
from app.settings import Settings, SettingsError, load_settings
from app.tracing import names, setup
from app.tracing.export import OneWarning, WaitingSpans, most_waiting
from app.tracing.setup import Tracing, endpoint_of, make_provider, start_tracing
from tests.support.reader.logs import said
from tests.unit.tracing.recording import SAMPLED, TRACE, Recorder, incoming


@pytest.mark.parametrize(
    ("own", "environment", "endpoint"),
    [
        (None, {}, None),
        ("http://c:4318", {}, "http://c:4318/v1/traces"),
        ("http://c:4318/", {}, "http://c:4318/v1/traces"),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c/base"}, "https://c/base/v1/traces"),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/x"}, "http://c/x"),
        ("http://c:4318", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://other/x"}, "http://c:4318/v1/traces"),
        ("http://c:4318", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://other"}, "http://c:4318/v1/traces"),
    ],
)
def test_the_collector_is_ours_or_the_one_of_opentelemetrys_variables(
    own: str | None, environment: dict[str, str], endpoint: str | None
) -> None:
    assert endpoint_of(Settings(trace_endpoint=own), environment) == endpoint


@pytest.mark.parametrize("wrong", ["collector:4318", "grpc://c:4317", "http://", "http://c:port"])
def test_an_endpoint_that_is_no_address_is_refused_by_its_name(wrong: str) -> None:
    with pytest.raises(SettingsError, match=r"^AI_TRACE_ENDPOINT: is no address like http://127.0.0.1:4318$"):
        load_settings(trace_endpoint=wrong)


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_a_share_is_between_nothing_and_all(rate: float) -> None:
    with pytest.raises(SettingsError, match="AI_TRACE_SAMPLING_RATE"):
        load_settings(trace_sampling_rate=rate)


def test_without_an_endpoint_there_are_no_traces() -> None:
    assert start_tracing(Settings(), "spillway") is None


def test_opentelemetrys_own_switch_turns_them_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert start_tracing(Settings(trace_endpoint="http://127.0.0.1:9"), "spillway") is None


def test_missing_libraries_are_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith(("opentelemetry.sdk", "app.tracing.export")):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SettingsError, match=r"pip install 'spillway\[traces\]'"):
        start_tracing(Settings(trace_endpoint="http://127.0.0.1:9"), "spillway")


def test_the_environment_may_name_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_provider(1.0, "spillway").resource.attributes["service.name"] == "spillway"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "answers")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=live")
    known = make_provider(1.0, "spillway").resource.attributes
    assert (known["service.name"], known["deployment.environment.name"]) == ("answers", "live")


class Stuck(SpanExporter):
    """A collector that takes a batch and never answers."""

    def __init__(self) -> None:
        self.asked, self.released = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002
        self.asked.set()
        self.released.wait()
        return SpanExportResult.FAILURE

    def shutdown(self) -> None: ...


def test_the_end_does_not_wait_for_a_collector_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "LAST_WORDS", 0.05)
    stuck, provider = Stuck(), make_provider(1.0, "test")
    processor = BatchSpanProcessor(stuck, schedule_delay_millis=1)
    provider.add_span_processor(processor)
    tracing = Tracing(provider, processor)
    tracing.tracer().start_span("one").end()
    assert stuck.asked.wait(10)
    tracing.close()
    assert not stuck.released.is_set(), "it is still stuck, and we are here"
    stuck.released.set()


class Scripted(SpanExporter):
    def __init__(self, *results: bool) -> None:
        self.results = list(results)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002
        return SpanExportResult.SUCCESS if self.results.pop(0) else SpanExportResult.FAILURE

    def shutdown(self) -> None: ...


def test_an_outage_of_the_collector_is_told_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "app.tracing.export")
    dropped: list[tuple[str, int]] = []
    script = Scripted(True, False, False, False, True, True, False)
    exporter = OneWarning("", lambda *told: dropped.append(told), script)
    for number in range(7):
        exporter.export([ReadableSpan(str(one)) for one in range(number)])
    assert [line.message.split(":")[0] for line in said(caplog, "app.tracing.export")] == [
        "traces_unsent",
        "traces_sent",
        "traces_unsent",
    ]
    assert dropped == [("unsent", count) for count in (1, 2, 3, 6)]


def test_spans_for_which_there_is_no_room_are_counted_and_told_of_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    registry, stuck, now = CollectorRegistry(), Stuck(), [0.0]
    processor = WaitingSpans(stuck, count_dropped_spans(registry), lambda: now[0])
    provider = make_provider(1.0, "test")
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("test")

    def end(count: int) -> None:
        for _ in range(count):
            tracer.start_span("one").end()

    end(2)
    assert stuck.asked.wait(10), "these two are on their way"
    end(4)
    assert registry.get_sample_value("ai_trace_spans_dropped_total", {"reason": "queue_full"}) is None
    end(3)
    now[0] = 59.0
    end(1)
    now[0] = 60.0
    end(1)
    assert registry.get_sample_value("ai_trace_spans_dropped_total", {"reason": "queue_full"}) == 5
    told = [line.args for line in caplog.records if line.message.startswith("traces_dropped")]
    assert told == [(1, 4), (4, 4)]
    stuck.released.set()
    provider.shutdown()


def test_spans_that_are_not_sampled_take_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    dropped: list[tuple[str, int]] = []
    provider = make_provider(0.0, "test")
    provider.add_span_processor(WaitingSpans(Scripted(), lambda *told: dropped.append(told)))
    for _ in range(3):
        provider.get_tracer("test").start_span("one").end()
    assert dropped == []
    provider.shutdown()


@pytest.mark.parametrize(("told", "most"), [(None, 2_048), ("100", 100), ("many", 2_048)])
def test_the_size_of_the_queue_is_opentelemetrys_own(
    monkeypatch: pytest.MonkeyPatch, told: str | None, most: int
) -> None:
    if told is not None:
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", told)
    assert most_waiting() == most


def test_log_lines_of_a_traced_request_name_the_trace_and_the_request() -> None:
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    try:
        configure_logging("INFO", "json", stream)
        traces, log = Recorder(0.0).traces, logging.getLogger("app.something")
        with traces.processing(incoming(traceparent=SAMPLED)):
            traces.about("acme", "r-1")
            log.info("traced")
        with traces.processing(incoming()):
            log.info("not sampled")
        log.info("not traced")
    finally:
        root.handlers[:], root.level = handlers, level
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    told = [(line["event"], line.get("trace_id"), line.get("request_id")) for line in lines]
    assert told == [("traced", TRACE, "r-1"), ("not sampled", None, None), ("not traced", None, None)]


def test_names_are_those_of_the_conventions() -> None:
    modules = (gen_ai_attributes, messaging_attributes, http_attributes, stable_http, error_attributes)
    known = {value for module in modules for value in vars(module).values() if isinstance(value, str)}
    ours = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}
    assert {name for name in ours - {names.KAFKA} if not name.startswith("spillway.")} <= known
