"""Bytes to events and back, and what a reader is told about bytes that are none."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import WorkspaceSpend
from schemas.base import Event
from schemas.codec import UndecodableError, decode, encode, event_headers, header, parse_object
from schemas.internal import AttemptReport, DispatchCommand
from schemas.request import CompletionRequest
from schemas.response import Response
from schemas.usage import UsageEvent

EVENTS: list[type[Event]] = [
    CompletionRequest,
    DispatchCommand,
    AttemptReport,
    Response,
    UsageEvent,
    WorkspaceSpend,
]


def test_an_event_comes_back_as_it_was() -> None:
    request = CompletionRequest(request_id="r-1", prompt="Grüße, 世界 \u0000", metadata={"k": "v"})
    assert decode(CompletionRequest, encode(request)) == request


def test_what_is_absent_is_not_on_the_wire() -> None:
    body = json.loads(encode(CompletionRequest(prompt="hi")))
    assert "request_id" not in body
    assert None not in body.values()


def test_a_null_that_the_caller_wrote_inside_free_form_options_is_kept() -> None:
    options = {"openai": {"stop": None, "enum": [None, {"default": None}]}}
    request = CompletionRequest(prompt="hi", provider_options=options)
    assert decode(CompletionRequest, encode(request)).provider_options == options


def test_an_unknown_field_is_ignored() -> None:
    assert decode(CompletionRequest, b'{"prompt":"hi","from_the_future":1}') == CompletionRequest(prompt="hi")


@pytest.mark.parametrize("model", EVENTS)
@given(value=st.one_of(st.none(), st.binary(max_size=200), st.recursive(st.none(), st.lists).map(repr).map(str.encode)))
def test_bytes_that_are_no_event_are_undecodable_and_nothing_else(model: type[Event], value: bytes | None) -> None:
    with pytest.raises(UndecodableError) as caught:
        decode(model, value)
    assert caught.value.code == "invalid_event"


def test_an_unknown_version_is_undecodable() -> None:
    body = {"workspace_id": "acme", "month": "2026-01", "spent": "1", "schema_version": 2}
    with pytest.raises(UndecodableError, match="schema_version"):
        decode(WorkspaceSpend, json.dumps(body).encode())


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-10:00"])
def test_a_moment_that_utc_cannot_hold_is_undecodable_and_not_a_fault(moment: str) -> None:
    with pytest.raises(UndecodableError, match="deadline"):
        decode(CompletionRequest, json.dumps({"prompt": "hi", "deadline": moment}).encode())


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "no value"),
        (b"", "no value"),
        (b"hello", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "not a list"),
        (b'"text"', "not a str"),
        (b"7", "not a int"),
        (b"null", "not a NoneType"),
        (b'{"a":NaN}', "not JSON"),
        (b'{"a":"\\ud800"}', "not JSON"),
    ],
)
def test_a_value_that_is_no_json_object_is_told_so(value: bytes | None, told: str) -> None:
    with pytest.raises(UndecodableError, match=told) as caught:
        parse_object(value)
    assert caught.value.code == "not_json"


def test_problems_are_named_by_field_without_showing_values() -> None:
    value = b'{"prompt":"my secret","temperature":"my secret","metadata":{"a":["my secret"]}}'
    with pytest.raises(UndecodableError) as caught:
        decode(CompletionRequest, value)
    assert "temperature" in str(caught.value)
    assert "metadata.a" in str(caught.value)
    assert "my secret" not in str(caught.value)


def test_many_problems_are_counted_and_not_listed() -> None:
    value = json.dumps({"prompt": "hi", "metadata": {str(number): 1 for number in range(20)}}).encode()
    with pytest.raises(UndecodableError, match=r"and 15 more$"):
        decode(CompletionRequest, value)


def test_a_giant_field_name_does_not_make_a_giant_message() -> None:
    value = json.dumps({"prompt": "hi", "provider_options": {"X" * 500_000: {}}}).encode()
    with pytest.raises(UndecodableError) as caught:
        decode(CompletionRequest, value)
    assert len(str(caught.value)) < 2_000


def test_the_headers_of_an_event_are_those_of_cloudevents_in_binary_mode() -> None:
    headers = event_headers(
        event_id="r-1/response",
        event_type="ai.response.succeeded",
        workspace_id="acme",
        time=datetime(2026, 1, 31, 23, 59, tzinfo=UTC),
        traceparent="00-abc-def-01",
    )
    assert dict(headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"r-1/response",
        "ce_type": b"ai.response.succeeded",
        "ce_source": b"/spillway/acme",
        "ce_time": b"2026-01-31T23:59:00+00:00",
        "content-type": b"application/json",
        "traceparent": b"00-abc-def-01",
    }


@pytest.mark.parametrize("absent", [None, ""])
def test_without_a_trace_there_is_no_trace_header(absent: str | None) -> None:
    headers = event_headers(event_id="1", event_type="t", workspace_id="w", time=datetime.now(UTC), traceparent=absent)
    assert header(headers, "traceparent") is None


def test_the_last_of_repeated_headers_counts_whatever_the_case_of_its_name() -> None:
    headers = (("CE_ID", b"first"), ("other", b"x"), ("ce_Id", b"last"))
    assert header(headers, "ce_id") == b"last"
    assert header(headers, "absent") is None


ZONES = st.sampled_from([UTC, timezone(timedelta(hours=9)), timezone(timedelta(hours=-7))])
#: Naive, as the strategy wants them; a day away from both ends of the calendar.
FIRST, LAST = datetime(1, 1, 2), datetime(9999, 12, 30)  # noqa: DTZ001


@given(st.datetimes(min_value=FIRST, max_value=LAST, timezones=ZONES))
def test_a_moment_is_kept_in_utc_and_names_the_same_instant(moment: datetime) -> None:
    kept = CompletionRequest(prompt="hi", deadline=moment).deadline
    assert kept is not None
    assert kept == moment
    assert kept.utcoffset() == timedelta(0)
