"""The stages' spans: whose children they are, what they say, and what they leave alone."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from schemas.codec import header
from schemas.usage import Tokens
from streams.records import Record
from streams.runtime.errors import AbandonedError
from streams.tracing import NO_TRACES, CallBegun, CallEnded
from tests.unit.tracing.recording import OTHER, SAMPLED, SPAN, TRACE, UNSAMPLED, Recorder, hexadecimal, incoming, told

REPORT = Record("ai.attempts", b"acme", b"{}", told(("ce_id", "r/1"), ("ce_type", "x"), ("traceparent", SAMPLED)), 3)
CALL = CallBegun(provider="claude", kind="completion", model="opus", lane="claude/0", attempt=2, max_tokens=77)


def traceparent(record: Record) -> str:
    return (header(record.headers, "traceparent") or b"").decode()


# A record ----------------------------------------------------------------------------------------------------------


def test_a_stage_continues_the_trace_of_its_record_and_says_where_it_lay() -> None:
    recorder = Recorder()
    with recorder.traces.processing(incoming("ai.attempts", SAMPLED)):
        recorder.traces.about("acme", "r-1", follow="answer", nothing=None)
    span = recorder.span
    assert (span.name, span.kind) == ("process ai.attempts", SpanKind.CONSUMER)
    trace, _, parent = hexadecimal(span)
    assert (trace, parent) == (TRACE, SPAN)
    attributes = dict(span.attributes or {})
    queued = attributes.pop("spillway.queued")
    assert isinstance(queued, float)
    assert queued > 0
    assert attributes == {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": "ai.attempts",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 42,
        "messaging.consumer.group.name": "spillway",
        "messaging.message.body.size": 2,
        "spillway.workspace_id": "acme",
        "spillway.request_id": "r-1",
        "spillway.follow": "answer",
    }


def test_a_request_without_a_trace_begins_one_and_any_other_record_does_not() -> None:
    recorder = Recorder()
    with recorder.traces.processing(incoming("ai.ticks")):
        assert not get_current_span().get_span_context().is_valid
    assert recorder.spans == ()
    with recorder.traces.processing(incoming("ai.requests")):
        pass
    assert hexadecimal(recorder.span)[2] == ""


@pytest.mark.parametrize("malformed", ["", "00-1-2-03", "nonsense", f"00-{'0' * 32}-{SPAN}-01", "\udcff"])
def test_a_malformed_trace_is_none(malformed: str) -> None:
    recorder = Recorder()
    headers = (("traceparent", malformed.encode("utf-8", errors="surrogateescape")),)
    with recorder.traces.processing(incoming(headers=headers)):
        pass
    assert hexadecimal(recorder.span)[2] == ""


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["traceparent", "TraceParent", "tracestate", "content-type", "ce_type"]),
            st.none() | st.binary(max_size=64) | st.sampled_from([SAMPLED.encode(), b"application/cloudevents+json"]),
        ),
        max_size=4,
    ),
    st.binary(max_size=32),
)
def test_no_header_of_a_stranger_raises(headers: Any, value: bytes) -> None:
    recorder = Recorder()
    record = incoming(headers=tuple(headers), value=value)
    with recorder.traces.processing(record):
        sending = recorder.traces.sending(Record("ai.requests", None, value, record.headers))
        recorder.traces.waited(record, "claude/0")
    recorder.traces.stored([record], since=0.0)
    assert sending is None or traceparent(sending.record)


def test_a_cloud_event_in_structured_mode_may_carry_its_trace_inside() -> None:
    recorder = Recorder()
    headers = told(("content-type", "application/cloudevents+json; charset=utf-8"))
    with recorder.traces.processing(incoming(value=f'{{"traceparent": "{SAMPLED}"}}'.encode(), headers=headers)):
        pass
    assert hexadecimal(recorder.span)[2] == SPAN
    for value in (b"not JSON", b"[1]", b'{"traceparent": 7}'):
        with recorder.traces.processing(incoming(value=value, headers=headers)):
            pass
    assert [hexadecimal(span)[2] for span in recorder.spans[1:]] == ["", "", ""]


@pytest.mark.parametrize(
    ("rate", "sent", "sampled"),
    [(0.0, None, False), (0.0, SAMPLED, True), (1.0, None, True), (1.0, UNSAMPLED, False), (0.0, UNSAMPLED, False)],
)
def test_whoever_sends_a_trace_decides_and_of_the_others_a_share_is_sampled(
    rate: float, sent: str | None, sampled: bool
) -> None:
    recorder = Recorder(rate)
    with recorder.traces.processing(incoming(traceparent=sent)):
        own = (("traceparent", sent),) if sent else ()
        sending = recorder.traces.sending(Record("t", None, b"", told(("ce_id", "1"), *own)))
    assert bool(recorder.spans) is sampled
    carried = traceparent(sending.record) if sending is not None else sent or ""
    assert bool(int(carried[-2:], 16) & 1) is sampled, "the decision goes along"


def test_a_stage_that_was_woken_by_another_request_takes_nothing_from_it() -> None:
    recorder = Recorder()
    with recorder.traces.processing(incoming(traceparent=SAMPLED)):
        with recorder.traces.processing(incoming("ai.ticks")):
            assert recorder.traces.here("told") == "told"
            assert recorder.traces.sending(Record("t", None, b"", told(("ce_id", "1")))) is None
        with recorder.traces.processing(incoming("ai.attempts", OTHER)):
            pass
    assert hexadecimal(recorder.spans[0])[2] == "2" * 16


def test_a_record_that_is_given_up_and_one_that_is_buried_say_so() -> None:
    recorder = Recorder()
    with pytest.raises(AbandonedError), recorder.traces.processing(incoming()):
        raise AbandonedError
    with recorder.traces.processing(incoming()):
        recorder.traces.buried("not_json")
    given_up, buried = recorder.spans
    assert dict(given_up.attributes or {})["spillway.abandoned"] is True
    assert given_up.status.status_code is StatusCode.UNSET
    assert dict(buried.attributes or {})["error.type"] == "not_json"
    assert buried.status.status_code is StatusCode.ERROR
    assert buried.events == (), "no text of an exception"


# Sending -----------------------------------------------------------------------------------------------------------


async def test_what_a_stage_sends_carries_the_context_of_its_sending() -> None:
    recorder = Recorder()
    sent: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    with recorder.traces.processing(incoming("ai.dispatch.claude", SAMPLED)):
        sending = recorder.traces.sending(REPORT)
        assert sending is not None
        with sending:
            sending.until(sent)
    sent.set_result(SimpleNamespace(partition=3, offset=17))
    await asyncio.sleep(0)
    stage, span = recorder.spans
    assert (span.name, span.kind) == ("send ai.attempts", SpanKind.PRODUCER)
    assert hexadecimal(span)[2] == hexadecimal(stage)[1]
    assert traceparent(sending.record) == f"00-{TRACE}-{hexadecimal(span)[1]}-01"
    assert [name for name, _ in sending.record.headers] == ["ce_id", "ce_type", "traceparent"]
    attributes = dict(span.attributes or {})
    assert (attributes["messaging.kafka.offset"], attributes["messaging.message.id"]) == (17, "r/1")


async def test_a_record_of_another_trace_stays_in_its_own_and_is_linked() -> None:
    recorder = Recorder()
    with recorder.traces.processing(incoming("ai.attempts", OTHER)):
        sending = recorder.traces.sending(REPORT)
        assert sending is not None
        sent: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        sending.until(sent)
        sent.set_result(None)
        await asyncio.sleep(0)
    span, stage = recorder.spans
    assert hexadecimal(span)[::2] == (TRACE, SPAN)
    assert [f"{link.context.span_id:016x}" for link in span.links] == [hexadecimal(stage)[1]]
    assert traceparent(sending.record).startswith(f"00-{TRACE}-")


def test_a_record_of_a_trace_that_is_not_sampled_is_left_as_it_is() -> None:
    recorder = Recorder()
    record = Record("t", None, b"", told(("ce_id", "1"), ("traceparent", UNSAMPLED)))
    with recorder.traces.processing(incoming("ai.attempts", OTHER)):
        assert recorder.traces.sending(record) is None


def test_chunks_carry_the_trace_and_have_no_spans_of_their_own() -> None:
    recorder = Recorder()
    chunk = Record("replies", None, b"", told(("ce_type", "ai.response.chunk"), ("traceparent", SAMPLED)))
    with recorder.traces.processing(incoming("ai.dispatch.claude", SAMPLED)):
        sending = recorder.traces.sending(chunk)
    assert sending is not None
    assert traceparent(sending.record) == f"00-{TRACE}-{hexadecimal(recorder.span)[1]}-01"


def test_dead_letters_and_rows_of_tables_are_left_as_they_are() -> None:
    recorder = Recorder()
    with recorder.traces.processing(incoming()):
        assert recorder.traces.sending(Record("ai.dead-letters", None, b"", REPORT.headers)) is None
        assert recorder.traces.sending(Record("x-changelog", b"k", b"v")) is None


@pytest.mark.parametrize("how", ["refused", "failed", "cancelled"])
async def test_a_sending_that_fails_says_how_without_the_text(how: str) -> None:
    recorder = Recorder()
    sent: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    with recorder.traces.processing(incoming(traceparent=SAMPLED)):
        sending = recorder.traces.sending(REPORT)
        assert sending is not None
        if how == "refused":
            with pytest.raises(ValueError, match="secret"), sending:
                raise ValueError("secret")
        else:
            with sending:
                sending.until(sent)
            if how == "cancelled":
                sent.cancel()
            else:
                sent.set_exception(ValueError("secret"))
            await asyncio.sleep(0)
    span = recorder.spans[0]
    assert dict(span.attributes or {})["error.type"] == ("cancelled" if how == "cancelled" else "ValueError")
    assert "secret" not in span.to_json()


def test_tracestate_goes_along() -> None:
    recorder = Recorder()
    headers = told(("traceparent", SAMPLED), ("tracestate", "vendor=1"))
    with recorder.traces.processing(incoming("ai.attempts", headers=headers)):
        sending = recorder.traces.sending(REPORT)
    assert sending is not None
    assert header(sending.record.headers, "tracestate") == b"vendor=1"


# Waiting, calling, storing -----------------------------------------------------------------------------------------


def test_waiting_in_a_lane_is_from_when_the_command_was_published_and_beside_its_processing() -> None:
    recorder = Recorder()
    command = incoming("ai.dispatch.claude", SAMPLED)
    with recorder.traces.processing(command):
        recorder.traces.waited(command, "claude/0")
        with recorder.traces.waiting("claude/0"):
            pass
    turn, retry, stage = recorder.spans
    assert (turn.name, turn.start_time, hexadecimal(turn)[2]) == ("wait claude/0", 1_767_225_600_000_000_000, SPAN)
    assert (turn.end_time or 0) >= (turn.start_time or 0)
    assert hexadecimal(retry)[2] == hexadecimal(stage)[1]


def test_a_command_from_a_clock_that_is_ahead_has_not_waited_less_than_nothing() -> None:
    recorder = Recorder()
    command = incoming("ai.dispatch.claude", SAMPLED, timestamp=9_999_999_999_000)
    with recorder.traces.processing(command):
        recorder.traces.waited(command, "claude/0")
    waited, stage = recorder.spans
    assert (waited.end_time or 0) >= (waited.start_time or 0)
    assert dict(stage.attributes or {})["spillway.queued"] == 0.0


def test_a_call_is_told_by_the_genai_conventions() -> None:
    recorder = Recorder()
    tokens = Tokens(prompt_tokens=12, completion_tokens=40, cached_tokens=5)
    with recorder.traces.processing(incoming("ai.dispatch.claude", SAMPLED)):
        current = get_current_span()
        with recorder.traces.calling(CALL) as call:
            assert get_current_span() is current, "an SDK that traces itself must not continue the call"
            call.ended(CallEnded("opus-4", "stop", tokens, first_chunk=0.25))
    span, stage = recorder.spans
    assert (span.name, span.kind, hexadecimal(span)[2]) == ("chat opus", SpanKind.CLIENT, hexadecimal(stage)[1])
    assert span.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "opus",
        "gen_ai.request.max_tokens": 77,
        "gen_ai.response.model": "opus-4",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 40,
        "gen_ai.usage.cache_read.input_tokens": 5,
        "gen_ai.usage.reasoning.output_tokens": 0,
        "spillway.provider": "claude",
        "spillway.lane": "claude/0",
        "spillway.attempt": 2,
    }


def test_a_call_that_failed_has_its_code_and_one_that_was_torn_away_too() -> None:
    recorder = Recorder()
    with recorder.traces.processing(incoming("ai.dispatch.claude", SAMPLED)):
        with recorder.traces.calling(CALL) as call:
            call.ended(CallEnded(error="rate_limited", in_doubt=True))
        with pytest.raises(asyncio.CancelledError), recorder.traces.calling(CALL):
            raise asyncio.CancelledError
    failed, torn, _ = recorder.spans
    assert failed.status.status_code is torn.status.status_code is StatusCode.ERROR
    assert dict(failed.attributes or {})["error.type"] == "rate_limited"
    assert dict(failed.attributes or {})["spillway.in_doubt"] is True
    assert dict(torn.attributes or {})["error.type"] == "CancelledError"


def test_each_row_of_a_batch_is_a_span_in_the_trace_of_its_request() -> None:
    recorder = Recorder()
    batch = [incoming("ai.usage", sent, offset=place) for place, sent in enumerate((SAMPLED, UNSAMPLED, None, OTHER))]
    recorder.traces.stored(batch, since=1_767_225_600.5)
    first, last = recorder.spans
    assert hexadecimal(first)[::2] == (TRACE, SPAN)
    assert hexadecimal(last)[2] == "2" * 16
    assert first.start_time == 1_767_225_600_500_000_000
    attributes = dict(first.attributes or {})
    known = attributes["messaging.consumer.group.name"], attributes["spillway.batch.rows"]
    assert known == ("spillway-ledger", 4)


def test_one_request_that_depends_on_another_is_linked_to_it() -> None:
    recorder = Recorder()
    with recorder.traces.processing(incoming(traceparent=SAMPLED)):
        recorder.traces.follows(OTHER)
        recorder.traces.follows(None)
    assert [f"{link.context.trace_id:032x}" for link in recorder.span.links] == ["1" * 32]


def test_long_ids_are_cut() -> None:
    recorder = Recorder()
    with recorder.traces.processing(incoming()):
        recorder.traces.about("acme", "r" * 1_000)
    assert dict(recorder.span.attributes or {})["spillway.request_id"] == "r" * 256


def test_where_nobody_traces_a_request_keeps_what_it_came_with() -> None:
    assert NO_TRACES.here(SAMPLED) == SAMPLED
    assert NO_TRACES.sending(REPORT) is None
    with NO_TRACES.processing(incoming()), NO_TRACES.waiting("claude/0"), NO_TRACES.calling(CALL) as call:
        call.ended(CallEnded())
