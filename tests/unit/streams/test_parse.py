"""Whatever a record holds becomes a request or a refusal that says why."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.base import DEFAULT_WORKSPACE
from schemas.codec import Headers, decode, encode
from schemas.internal import DispatchCommand
from schemas.request import CompletionRequest, EmbeddingRequest, ReplyAddress, SearchRequest
from streams.admit.decide import AdmissionPolicy, Forward, Seen, decide
from streams.admit.parse import MAX_HEADER_BYTES, MAX_HEADERS, Parsed, Raw, Refusal, parse
from streams.budgets import Budget

STRUCTURED = ("content-type", b"application/cloudevents+json; charset=utf-8")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = AdmissionPolicy(("claude",), {"claude": frozenset({"completion", "embedding", "search"})})
KNOWN_HEADERS = [
    "ce_id",
    "ce_type",
    "ce_expirytime",
    "content-type",
    "traceparent",
    "kafka_replyTopic",
    "kafka_correlationId",
    "kafka_replyPartition",
    "reply_to",
]
HEADER_VALUES = st.one_of(
    st.none(),
    st.binary(max_size=40),
    st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat().encode()),
    st.sampled_from([STRUCTURED[1], b"9" * 5_000, b"0001-01-01T00:00:00+10:00", b"9999-12-31T23:59:59-10:00"]),
)
ANY_HEADERS = st.lists(
    st.tuples(st.one_of(st.sampled_from(KNOWN_HEADERS), st.text(max_size=10)), HEADER_VALUES), max_size=8
).map(tuple)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.floats(allow_nan=False), st.text(max_size=8)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)
FIELDS = [*CompletionRequest.model_fields, *SearchRequest.model_fields, *EmbeddingRequest.model_fields, "data", "id"]
BODIES = st.dictionaries(st.sampled_from(sorted(set(FIELDS))), JSON, max_size=5)
PLAUSIBLE = BODIES.map(lambda body: {"prompt": "hi"} | body)


def read(value: bytes | None, headers: Headers = (), *, identity: str = "t/0/1/2") -> Parsed | Refusal:
    return parse(Raw(value, headers, identity), max_bytes=10_000)


def read_body(body: dict[str, Any], *headers: tuple[str, bytes]) -> Parsed | Refusal:
    return read(json.dumps(body).encode(), headers)


def accepted(result: Parsed | Refusal) -> Parsed:
    assert isinstance(result, Parsed), result
    return result


def refused(result: Parsed | Refusal) -> Refusal:
    assert isinstance(result, Refusal), result
    return result


def test_a_prompt_without_any_header_is_enough() -> None:
    parsed = accepted(read(b'{"prompt":"hi"}'))
    assert parsed.request == CompletionRequest(prompt="hi")
    assert parsed.envelope.workspace_id == DEFAULT_WORKSPACE
    assert parsed.envelope.reply is None


@pytest.mark.parametrize("value", [None, b"", b"hello", b"\xff\xfe\x00", b"[]", b'"text"', b"null", b'{"prompt":'])
def test_what_is_no_json_object_is_refused(value: bytes | None) -> None:
    assert refused(read(value)).code == "not_json"


@pytest.mark.parametrize("version", [0, 2, -1, "1", None, [1], "x" * 10_000])
def test_an_unknown_version_is_refused_in_a_short_sentence(version: object) -> None:
    value = json.dumps({"prompt": "hi", "schema_version": version}).encode()
    refusal = refused(parse(Raw(value, (), "x"), max_bytes=100_000))
    assert refusal.code == "unknown_version"
    assert len(refusal.message) < 200


@pytest.mark.parametrize("kind", ["image", "", None, 1, ["completion"], {}, "x" * 9_000])
def test_an_unknown_kind_is_refused_in_a_short_sentence(kind: object) -> None:
    refusal = refused(read_body({"prompt": "hi", "kind": kind}))
    assert refusal.code == "unknown_kind"
    assert "completion, embedding, search" in refusal.message
    assert len(refusal.message) < 200


@pytest.mark.parametrize(
    ("body", "model"),
    [
        ({"kind": "completion", "prompt": "hi"}, CompletionRequest),
        ({"kind": "embedding", "input": "hi"}, EmbeddingRequest),
        ({"kind": "search", "query": "hi"}, SearchRequest),
    ],
)
def test_each_kind_is_read_as_its_own_model(body: dict[str, Any], model: type) -> None:
    assert type(accepted(read_body(body)).request) is model


def test_a_record_that_is_too_large_is_refused_by_its_size_alone() -> None:
    refusal = refused(read(b"x" * 10_001))
    assert refusal.code == "too_large"
    assert "10,001" in refusal.message


def test_a_record_of_exactly_the_largest_size_is_read() -> None:
    empty = json.dumps({"prompt": ""}).encode()
    assert accepted(read_body({"prompt": "x" * (10_000 - len(empty))}))


@pytest.mark.parametrize(
    "headers",
    [
        tuple((f"h{number}", b"") for number in range(MAX_HEADERS + 1)),
        (("big", b"x" * (MAX_HEADER_BYTES + 1)),),
        (("x" * (MAX_HEADER_BYTES + 1), b""),),
    ],
    ids=["many", "long", "long name"],
)
def test_hostile_headers_are_refused_without_reading_one_of_them(headers: Headers) -> None:
    refusal = refused(read(b'{"prompt":"hi"}', (*headers, ("reply_to", b"t"), ("ce_id", b"forged"))))
    assert refusal.code == "hostile_headers"
    assert refusal.envelope.reply is None
    assert refusal.envelope.request_id != "forged"


def test_the_headers_of_a_cloudevent_name_the_request() -> None:
    parsed = accepted(
        read_body(
            {"prompt": "hi"},
            ("ce_id", b"e-1"),
            ("ce_expirytime", b"2026-01-01T01:00:00+01:00"),
            ("traceparent", b"00-abc-def-01"),
        )
    )
    assert parsed.envelope.request_id == "e-1"
    assert parsed.envelope.expires == NOW
    assert parsed.envelope.traceparent == "00-abc-def-01"


def test_a_structured_cloudevent_is_unwrapped() -> None:
    event = {
        "specversion": "1.0",
        "id": "e-2",
        "type": "ai.request",
        "expirytime": "2026-01-01T00:00:00Z",
        "traceparent": "00-abc-def-01",
        "data": {"prompt": "hi", "workspace_id": "acme", "reply_to": "replies"},
    }
    parsed = accepted(read_body(event, STRUCTURED))
    assert parsed.request == CompletionRequest(prompt="hi", workspace_id="acme", reply_to="replies")
    assert parsed.envelope.request_id == "e-2"
    assert parsed.envelope.workspace_id == "acme"
    assert parsed.envelope.expires == NOW
    assert parsed.envelope.traceparent == "00-abc-def-01"
    assert parsed.envelope.reply == ReplyAddress(topic="replies")


@pytest.mark.parametrize("data", [None, "text", [], 7])
def test_a_structured_cloudevent_without_an_object_is_refused(data: object) -> None:
    refusal = refused(read_body({"id": "e-3", "data": data}, STRUCTURED))
    assert refusal.code == "invalid_request"
    assert "`data`" in refusal.message


def test_a_field_called_data_is_nothing_special_without_the_content_type() -> None:
    parsed = accepted(read_body({"prompt": "hi", "data": {"prompt": "other"}}))
    assert parsed.request == CompletionRequest(prompt="hi")


def test_the_body_has_the_last_word_on_the_id() -> None:
    parsed = accepted(read_body({"prompt": "hi", "request_id": "mine"}, ("ce_id", b"header")))
    assert parsed.envelope.request_id == "mine"


@pytest.mark.parametrize("identity", [b"", b"has space", b"\xff", b"x" * 201])
def test_a_malformed_event_id_is_replaced_by_a_stable_one(identity: bytes) -> None:
    first = accepted(read_body({"prompt": "hi"}, ("ce_id", identity)))
    again = accepted(read_body({"prompt": "hi"}, ("ce_id", identity)))
    assert uuid.UUID(first.envelope.request_id)
    assert first == again


def test_a_record_without_an_id_has_the_same_one_at_each_redelivery_and_no_other_has_it() -> None:
    ids = [read(b'{"prompt":"hi"}', identity=name).envelope.request_id for name in ("t/0/1/9", "t/0/1/9", "t/0/2/9")]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("expiry", [b"soon", b"2026-01-01T00:00:00", b"9999-12-31T23:59:59-10:00", b"\xff"])
def test_a_malformed_expiry_is_left_aside(expiry: bytes) -> None:
    assert accepted(read_body({"prompt": "hi"}, ("ce_expirytime", expiry))).envelope.expires is None


@pytest.mark.parametrize("deadline", ["0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-10:00"])
def test_a_deadline_that_utc_cannot_hold_is_refused(deadline: str) -> None:
    assert refused(read_body({"prompt": "hi", "deadline": deadline})).code == "invalid_request"


def test_a_refused_request_still_says_who_sent_it_and_where_the_answer_goes() -> None:
    body = {"request_id": "mine", "workspace_id": "acme", "reply_to": "replies", "max_tokens": 0, "prompt": "hi"}
    refusal = refused(read_body(body, ("correlation_id", b"c-1")))
    assert refusal.code == "invalid_request"
    assert "max_tokens" in refusal.message
    assert refusal.envelope.request_id == "mine"
    assert refusal.envelope.workspace_id == "acme"
    assert refusal.envelope.reply == ReplyAddress(topic="replies", correlation_id="c-1")


def test_even_a_record_that_is_no_json_is_answered_where_its_headers_say() -> None:
    refusal = refused(read(b"garbage", (("reply_to", b"replies"), ("ce_id", b"e-1"))))
    assert refusal.envelope.reply == ReplyAddress(topic="replies", dialect="faststream")
    assert refusal.envelope.request_id == "e-1"


@pytest.mark.parametrize("workspace", ["", "a/b", "a b", 7, None, "x" * 129])
def test_an_invalid_workspace_is_refused_in_the_name_of_the_default_one(workspace: object) -> None:
    refusal = refused(read_body({"prompt": "hi", "workspace_id": workspace}))
    assert refusal.code == "invalid_request"
    assert refusal.envelope.workspace_id == DEFAULT_WORKSPACE


def nested(depth: int) -> bytes:
    return b'{"prompt":"hi","provider_options":{"claude":{"a":' + b"[" * depth + b"]" * depth + b"}}}"


@pytest.mark.parametrize("depth", [150, 200, 300, 900])
def test_nesting_that_no_later_stage_could_read_is_refused_at_once(depth: int) -> None:
    refusal = refused(read(nested(depth)))
    assert refusal.code == "invalid_request"
    assert "nested" in refusal.message


def test_many_objects_side_by_side_are_not_deep() -> None:
    assert accepted(read_body({"prompt": "hi", "tools": [{"parameters": {"a": [{}]}}] * 200}))


def test_deep_but_reasonable_nesting_is_carried_to_the_end() -> None:
    assert_carried(accepted(read(nested(80))))


def assert_carried(parsed: Parsed) -> None:
    """What admission accepts, dispatch can read: a command that cannot be written or read would lose the request."""
    decision = decide(parsed, Seen(1, Budget(Decimal(1000))), POLICY, NOW)
    if isinstance(decision, Forward):
        assert decode(DispatchCommand, encode(decision.command)) == decision.command


@given(value=st.one_of(st.none(), st.binary(max_size=200)), headers=ANY_HEADERS)
def test_no_bytes_and_no_headers_can_raise(value: bytes | None, headers: Headers) -> None:
    result = read(value, headers)
    assert result.envelope.request_id
    assert result == read(value, headers)


@given(body=st.one_of(BODIES, PLAUSIBLE), headers=ANY_HEADERS)
def test_no_json_can_raise_and_what_is_accepted_is_carried_unchanged(body: dict[str, Any], headers: Headers) -> None:
    result = read(orjson.dumps(body, default=str), headers)
    if isinstance(result, Parsed):
        assert_carried(result)
    else:
        assert result.code
        assert result.message


def test_a_trace_context_that_is_longer_than_any_is_left_aside_and_goes_nowhere_with_the_request() -> None:
    long = "00-" + "a" * 10_000
    parsed = parse(Raw(b'{"prompt": "hi"}', (("traceparent", long.encode()),), "t/0/1/0"), max_bytes=1_000_000)
    event = json.dumps({"id": "e-1", "data": {"prompt": "hi"}, "traceparent": long}).encode()
    structured = parse(Raw(event, (STRUCTURED,), "t/0/2/0"), max_bytes=1_000_000)
    for found in (parsed, structured):
        assert isinstance(found, Parsed)
        assert found.envelope.traceparent is None
