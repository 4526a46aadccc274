"""An answer in the dialect of the one who asked."""

from __future__ import annotations

import json
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import decode, header
from schemas.request import ReplyAddress
from schemas.response import Response, Status
from streams.admit.address import read_address
from streams.replies import as_reply, reply_record, response_record
from streams.topology import RESPONSES
from tests.unit.streams.making import NOW

RESPONSE = Response(request_id="r-1", workspace_id="acme", status=Status.SUCCEEDED, content="hello", answered_at=NOW)


def test_the_response_goes_to_the_topic_of_all_responses_in_the_workspaces_partition() -> None:
    record = response_record(RESPONSE, "00-abc-def-01", 4)
    assert (record.topic, record.key, record.partition) == (RESPONSES, b"acme", 4)
    assert record.value is not None
    assert decode(Response, record.value) == RESPONSE
    assert header(record.headers, "ce_id") == b"r-1/response"
    assert header(record.headers, "ce_type") == b"ai.response.succeeded"
    assert header(record.headers, "traceparent") == b"00-abc-def-01"


@pytest.mark.parametrize(
    ("dialect", "name"),
    [("spillway", "correlation_id"), ("faststream", "correlation_id"), ("spring", "kafka_correlationId")],
)
def test_each_dialect_finds_its_correlation_id_under_its_own_name(
    dialect: Literal["spillway", "faststream", "spring"], name: str
) -> None:
    record = reply_record(RESPONSE, ReplyAddress(topic="replies", correlation_id="c-1", dialect=dialect), None)
    assert (record.topic, record.key, record.partition) == ("replies", b"r-1", None)
    assert header(record.headers, name) == b"c-1"
    assert record.value is not None
    assert decode(Response, record.value) == RESPONSE


def test_a_faust_client_gets_the_response_in_its_envelope() -> None:
    record = reply_record(RESPONSE, ReplyAddress(topic="replies", correlation_id="c-1", dialect="faust"), None)
    assert record.value is not None
    envelope = json.loads(record.value)
    assert (envelope["key"], envelope["correlation_id"]) == ("r-1", "c-1")
    assert Response.model_validate(envelope["value"]) == RESPONSE


def test_a_faust_client_without_a_correlation_id_gets_an_empty_one() -> None:
    record = reply_record(RESPONSE, ReplyAddress(topic="replies", dialect="faust"), None)
    assert record.value is not None
    assert json.loads(record.value)["correlation_id"] == ""


def test_spring_gets_its_answer_in_the_partition_that_it_listens_to() -> None:
    record = reply_record(RESPONSE, ReplyAddress(topic="replies", partition=3, dialect="spring"), None)
    assert record.partition == 3


def test_without_a_correlation_id_there_is_no_header_for_it() -> None:
    record = reply_record(RESPONSE, ReplyAddress(topic="replies"), None)
    assert header(record.headers, "correlation_id") is None
    assert header(record.headers, "kafka_correlationId") is None


@given(st.binary(min_size=1, max_size=64))
def test_spring_gets_back_the_very_bytes_that_it_sent(correlation: bytes) -> None:
    address = read_address({}, (("kafka_replyTopic", b"replies"), ("kafka_correlationId", correlation)))
    assert address is not None
    kept = ReplyAddress.model_validate_json(address.model_dump_json())
    assert header(reply_record(RESPONSE, kept, None).headers, "kafka_correlationId") == correlation


def test_a_repeat_has_the_same_identity_and_the_same_bytes() -> None:
    assert response_record(RESPONSE, None, 4) == response_record(RESPONSE, None, 4)


@pytest.mark.parametrize("dialect", ["spillway", "spring", "faststream", "faust"])
def test_a_reply_made_of_the_responses_record_is_the_same(
    dialect: Literal["spillway", "spring", "faststream", "faust"],
) -> None:
    reply = ReplyAddress(topic="replies", correlation_id="c-1", dialect=dialect)
    said = response_record(RESPONSE, "00-abc-def-01", 4)
    assert as_reply(said, RESPONSE.request_id, reply) == reply_record(RESPONSE, reply, "00-abc-def-01")
