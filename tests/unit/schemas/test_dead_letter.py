"""A dead letter is the original record, byte for byte, with its story."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import Headers, header
from schemas.dead_letter import MAX_HEADER_BYTES, OFFSET, PARTITION, TIMESTAMP, TOPIC, DeadLetter, Origin

ORIGIN = Origin("ai.requests", 3, 42, 1_767_225_600_000)

ORIGINS = st.builds(
    Origin,
    topic=st.text(min_size=1, max_size=40),
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
    timestamp=st.integers(-1, 2**62),
    timestamp_type=st.sampled_from(["CREATE_TIME", "LOG_APPEND_TIME"]),
)
NAMES = st.text(max_size=30).filter(lambda name: not name.startswith("kafka_dlt-"))
PAIRS = st.lists(st.tuples(NAMES, st.one_of(st.none(), st.binary(max_size=50))), max_size=10).map(tuple)
BYTES = st.one_of(st.none(), st.binary(max_size=200))


@given(origin=ORIGINS, code=st.text(max_size=20), message=st.text(max_size=80), key=BYTES, value=BYTES, headers=PAIRS)
def test_any_record_comes_back_with_its_story(
    origin: Origin, code: str, message: str, key: bytes | None, value: bytes | None, headers: Headers
) -> None:
    letter = DeadLetter(origin, code, message, key, value, headers)
    assert DeadLetter.from_record(key, value, letter.to_headers()) == letter


def test_numbers_are_written_as_spring_kafka_writes_them() -> None:
    headers = DeadLetter(ORIGIN, "not_json", "no", b"k", b"v").to_headers()
    assert header(headers, TOPIC) == b"ai.requests"
    assert header(headers, PARTITION) == bytes([0, 0, 0, 3])
    assert header(headers, OFFSET) == bytes([0, 0, 0, 0, 0, 0, 0, 42])
    assert header(headers, TIMESTAMP) == (1_767_225_600_000).to_bytes(8, "big")


def test_a_record_without_a_timestamp_keeps_kafkas_minus_one() -> None:
    letter = DeadLetter(Origin("t", 0, 0, -1), "c", "m", None, None)
    assert DeadLetter.from_record(None, None, letter.to_headers()).origin.timestamp == -1


def test_a_letter_that_dies_again_tells_its_latest_death_only() -> None:
    first = DeadLetter(ORIGIN, "not_json", "first", b"k", b"v", (("mine", b"1"),))
    second = DeadLetter(Origin("elsewhere", 0, 7, 5), "too_large", "second", b"k", b"v", first.to_headers())
    read = DeadLetter.from_record(b"k", b"v", second.to_headers())
    assert read == DeadLetter(Origin("elsewhere", 0, 7, 5), "too_large", "second", b"k", b"v", (("mine", b"1"),))
    assert len(second.to_headers()) == len(first.to_headers())


def test_a_sender_cannot_forge_where_a_letter_comes_from() -> None:
    forged = (("KAFKA_DLT-original-topic", b"forged"), (TOPIC, b"forged"))
    letter = DeadLetter(ORIGIN, "c", "m", None, None, forged)
    assert DeadLetter.from_record(None, None, letter.to_headers()).origin == ORIGIN


@pytest.mark.parametrize("excess", [MAX_HEADER_BYTES, 100 * MAX_HEADER_BYTES])
def test_headers_that_would_burst_the_record_are_left_behind(excess: int) -> None:
    letter = DeadLetter(ORIGIN, "c", "m", None, b"v", (("small", b"1"), ("big", b"x" * excess), ("late", b"2")))
    read = DeadLetter.from_record(None, b"v", letter.to_headers())
    assert read.headers == (("small", b"1"),)
    assert read.origin == ORIGIN


@pytest.mark.parametrize("missing", [TOPIC, PARTITION, OFFSET, TIMESTAMP])
def test_a_record_without_the_story_is_no_dead_letter(missing: str) -> None:
    headers = DeadLetter(ORIGIN, "c", "m", None, None).to_headers()
    with pytest.raises(ValueError, match=missing):
        DeadLetter.from_record(None, None, tuple(pair for pair in headers if pair[0] != missing))
