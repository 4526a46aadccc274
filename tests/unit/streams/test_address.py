"""Where the answer is to go, in each dialect, and from whatever a stranger writes."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import Headers
from schemas.request import ReplyAddress
from streams.admit.address import MAX_CORRELATION_BYTES, read_address

DIALECTS = [
    ("kafka_replyTopic", "kafka_correlationId", "spring"),
    ("Faust-Ag-ReplyTo", "Faust-Ag-CorrelationId", "faust"),
    ("reply_to", "correlation_id", "faststream"),
]
ANY_HEADER = st.tuples(
    st.one_of(
        st.text(max_size=10),
        st.sampled_from([*(name for row in DIALECTS for name in row[:2]), "kafka_replyPartition"]),
    ),
    st.one_of(st.none(), st.binary(max_size=30), st.integers(0, 6_000).map(lambda digits: b"7" * digits)),
)


def test_nothing_said_is_nowhere() -> None:
    assert read_address({}, ()) is None


@pytest.mark.parametrize(("topic", "correlation", "dialect"), DIALECTS)
def test_each_dialect_is_read(topic: str, correlation: str, dialect: str) -> None:
    found = read_address({}, ((topic, b"replies"), (correlation, b"c-1")))
    assert found == ReplyAddress.model_validate({"topic": "replies", "correlation_id": "c-1", "dialect": dialect})


@pytest.mark.parametrize(("topic", "correlation", "dialect"), DIALECTS)
def test_the_names_are_read_whatever_their_case(topic: str, correlation: str, dialect: str) -> None:
    found = read_address({}, ((topic.upper(), b"replies"), (correlation.lower(), b"c-1")))
    assert found is not None
    assert (found.dialect, found.correlation_id) == (dialect, "c-1")


@pytest.mark.parametrize(("topic", "correlation", "dialect"), DIALECTS)
def test_a_correlation_id_of_any_bytes_travels_as_hexadecimal(topic: str, correlation: str, dialect: str) -> None:
    identity = uuid.UUID("ffeeddcc-bbaa-9988-7766-554433221100").bytes
    found = read_address({}, ((topic, b"replies"), (correlation, identity)))
    assert found is not None
    assert found.dialect == dialect
    assert found.binary_correlation
    assert found.correlation_id == identity.hex()


@given(st.binary(min_size=1, max_size=MAX_CORRELATION_BYTES))
def test_every_correlation_id_can_be_given_back_as_it_came(identity: bytes) -> None:
    found = read_address({}, (("kafka_replyTopic", b"replies"), ("kafka_correlationId", identity)))
    assert found is not None
    text = found.correlation_id
    assert text is not None
    assert (bytes.fromhex(text) if found.binary_correlation else text.encode()) == identity


def test_the_body_comes_before_the_headers_and_keeps_their_correlation_id() -> None:
    headers = (("kafka_replyTopic", b"spring"), ("correlation_id", b"c-1"), ("kafka_replyPartition", b"1"))
    found = read_address({"reply_to": "mine"}, headers)
    assert found == ReplyAddress(topic="mine", correlation_id="c-1", dialect="spillway")


@pytest.mark.parametrize("named", [None, "", 7, True, ["t"], {"topic": "t"}])
def test_a_body_that_names_no_topic_leaves_the_word_to_the_headers(named: object) -> None:
    found = read_address({"reply_to": named}, (("reply_to", b"replies"),))
    assert found == ReplyAddress(topic="replies", dialect="faststream")


@pytest.mark.parametrize(
    ("written", "partition"),
    [
        (bytes([0, 0, 0, 5]), 5),
        (b"5", 5),
        (b"0", 0),
        (b"2147483647", 2**31 - 1),
        (b"2147483648", None),
        (b"-1", None),
        (bytes([255, 255, 255, 255]), None),
        (b"", None),
        (b"seven", None),
        (b"0000000005", 5),
        ("٣".encode(), None),
        (b"\xff", None),
        (b"9" * 5_000, None),
        (None, None),
    ],
)
def test_a_reply_partition_is_read_as_springs_bytes_or_as_digits(written: bytes | None, partition: int | None) -> None:
    headers: tuple[tuple[str, bytes | None], ...] = (("kafka_replyTopic", b"t"), ("kafka_replyPartition", written))
    found = read_address({}, headers)
    assert found is not None
    assert found.partition == partition


def test_only_spring_names_a_reply_partition() -> None:
    found = read_address({}, (("reply_to", b"t"), ("kafka_replyPartition", b"3")))
    assert found is not None
    assert found.partition is None


def test_an_endless_correlation_id_is_left_out_and_the_topic_kept() -> None:
    found = read_address({}, (("reply_to", b"t"), ("correlation_id", b"x" * (MAX_CORRELATION_BYTES + 1))))
    assert found == ReplyAddress(topic="t", dialect="faststream")


@pytest.mark.parametrize("topic", [b"", b"\xff\xfe", None])
def test_a_topic_that_cannot_be_read_counts_as_absent(topic: bytes | None) -> None:
    headers: tuple[tuple[str, bytes | None], ...] = (("kafka_replyTopic", topic), ("reply_to", b"other"))
    assert read_address({}, headers) == ReplyAddress(topic="other", dialect="faststream")


@given(st.lists(ANY_HEADER, max_size=8).map(tuple), st.one_of(st.none(), st.text(), st.integers()))
def test_no_header_and_no_body_can_raise(headers: Headers, named: object) -> None:
    found = read_address({"reply_to": named}, headers)
    assert found is None or found.topic
