"""The client's spans, in applications that trace themselves and in those that do not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from opentelemetry.trace import SpanKind, StatusCode

import app.tracing.client as client_spans
from app.tracing.client import publishing, received, serving
from schemas.codec import header
from tests.unit.tracing.recording import OTHER, SAMPLED, SPAN, UNSAMPLED, Recorder, hexadecimal, incoming, told

REQUEST = ("ai.requests", b"{}", told(("ce_id", "r-1"), ("traceparent", SAMPLED)), "r-1", "acme")
BARE = ("ai.requests", b"{}", told(("ce_id", "r-1")), "r-1", "acme")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """An application that has set up OpenTelemetry."""
    found = Recorder()
    monkeypatch.setattr(client_spans, "get_tracer", found.provider.get_tracer)
    return found


def test_a_request_goes_with_the_context_of_its_sending(recorder: Recorder) -> None:
    with publishing(*REQUEST) as told_:
        told_.placed(SimpleNamespace(partition=2, offset=9))
    span = recorder.span
    assert (span.name, span.kind, hexadecimal(span)[2]) == ("send ai.requests", SpanKind.PRODUCER, SPAN)
    trace, identity, _ = hexadecimal(span)
    assert header(told_.headers, "traceparent") == f"00-{trace}-{identity}-01".encode()
    attributes = dict(span.attributes or {})
    assert (attributes["spillway.request_id"], attributes["messaging.kafka.offset"]) == ("r-1", 9)


def test_the_applications_own_span_is_the_parent_of_a_request_without_a_trace(recorder: Recorder) -> None:
    with recorder.provider.get_tracer("shop").start_as_current_span("checkout"), publishing(*BARE):
        pass
    sent, checkout = recorder.spans
    assert hexadecimal(sent)[2] == hexadecimal(checkout)[1]


def test_where_nobody_traces_a_request_goes_as_it_is() -> None:
    for request in (REQUEST, BARE):
        with publishing(*request) as told_:
            assert sorted(told_.headers) == sorted(request[2])
    malformed = told(("traceparent", "00-1-2-03"))
    with publishing("ai.requests", b"{}", malformed, "r-1", None) as told_:
        assert told_.headers == malformed


def test_a_request_that_kafka_does_not_take_is_an_error_without_its_text(recorder: Recorder) -> None:
    with pytest.raises(ValueError, match="secret"), publishing(*REQUEST):
        raise ValueError("secret")
    assert recorder.span.status.status_code is StatusCode.ERROR
    assert "secret" not in recorder.span.to_json()


def test_a_reply_ends_the_trace_that_it_carries_if_that_is_sampled(recorder: Recorder) -> None:
    for sent in (SAMPLED, UNSAMPLED, None):
        received(incoming("ai.replies", sent))
    assert (recorder.span.name, hexadecimal(recorder.span)[2]) == ("receive ai.replies", SPAN)


def test_an_http_request_is_the_parent_of_what_is_published_for_it(recorder: Recorder) -> None:
    with serving("POST", "/v1/x", OTHER) as answer:
        with publishing(*BARE):
            pass
        answer.answered(503)
    sent, served = recorder.spans
    assert hexadecimal(sent)[2] == hexadecimal(served)[1]
    assert (served.kind, hexadecimal(served)[2]) == (SpanKind.SERVER, "2" * 16)
    assert dict(served.attributes or {})["error.type"] == "503"


def test_the_trace_of_an_http_request_goes_on_where_the_door_does_not_trace() -> None:
    with serving("POST", "/v1/x", SAMPLED), publishing(*BARE) as told_:
        assert header(told_.headers, "traceparent") == SAMPLED.encode()
    with publishing(*BARE) as told_:
        assert header(told_.headers, "traceparent") is None, "nothing is left of it"
