"""Dead letters as they are read, and what goes with them when they are sent again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dlq.letters import REDRIVEN_FROM, REDRIVES, Place, Wanted, letter_of, sent_again, why_not
from schemas.dead_letter import KEY_OMITTED, NO_VALUE, VALUE_OMITTED, DeadLetter, Origin
from streams.admit.parse import Raw, parse

TOPICS = {"ai.requests", "ai.usage"}


def record(
    *headers: tuple[str, bytes | None], topic: str = "ai.requests", code: str = "not_json", mark: str | None = None
) -> Any:
    letter = DeadLetter(Origin(topic, 3, 17, 1_000), code, "it is no JSON", b"acme", b"{", headers)
    marks = ((mark, b"9000000"),) if mark else ()
    told = (*letter.to_headers(), *marks)
    return SimpleNamespace(partition=2, offset=5, timestamp=2_000, key=b"acme", value=b"{", headers=told)


def test_a_letter_tells_where_it_lies_where_it_came_from_and_why() -> None:
    letter = letter_of(record())
    assert (letter.place, letter.code, letter.message, letter.size) == (Place(2, 5), "not_json", "it is no JSON", 1)
    assert letter.origin is not None
    assert (letter.origin.topic, letter.origin.partition, letter.origin.offset) == ("ai.requests", 3, 17)
    assert "{" not in str(letter.as_data()["message"])


def test_a_record_that_is_no_letter_is_shown_and_never_sent() -> None:
    stranger = SimpleNamespace(partition=0, offset=1, timestamp=5, key=None, value=b"?", headers=())
    letter = letter_of(stranger)
    assert (letter.code, letter.origin) == ("unknown", None)
    assert why_not(letter, TOPICS) == "it is no dead letter of Spillway's"


@pytest.mark.parametrize(
    ("letter", "reason"),
    [
        (record(), None),
        (record(topic="customers.own"), "no worker reads customers.own"),
        (record(mark=VALUE_OMITTED), "its value was too large to be kept"),
        (record(mark=KEY_OMITTED), "its value was too large to be kept"),
        (record(mark=NO_VALUE), "it had neither a key nor a value"),
        (record(code="unreadable"), "it is a part of the log that cannot be read, and no record"),
        (record((VALUE_OMITTED, b"9000000")), None),
        (record(code="reply_undeliverable"), "its work was done"),
        (record(code="records_gone"), "its records were deleted before they were read"),
    ],
)
def test_what_cannot_be_processed_again_is_not_sent(letter: Any, reason: str | None) -> None:
    found = why_not(letter_of(letter), TOPICS)
    assert found == reason or (reason is not None and found is not None and found.startswith(reason))


def test_what_is_sent_has_the_headers_of_the_original_and_says_that_it_was_a_letter_and_how_often() -> None:
    first = record(("mine", b"\xff"), ("empty", None), ("ce_id", b"r-1"))
    headers = sent_again(letter_of(first), first)
    assert headers[:3] == [("mine", b"\xff"), ("empty", None), ("ce_id", b"r-1")]
    assert headers[3:] == [(REDRIVEN_FROM, b"2@5"), (REDRIVES, b"1")]
    second = record(*headers)
    assert letter_of(second).redrives == 1
    assert sent_again(letter_of(second), second)[-2:] == [(REDRIVEN_FROM, b"2@5"), (REDRIVES, b"2")]


def test_a_request_without_an_id_keeps_the_one_that_it_was_given_by_its_place() -> None:
    found = record()
    before = parse(Raw(b"{}", (), Origin("ai.requests", 3, 17, 1_000).identity), max_bytes=100)
    again = Raw(b"{}", tuple(sent_again(letter_of(found), found)), "ai.requests/3/99/5000")
    after = parse(again, max_bytes=100)
    assert before.envelope.request_id == after.envelope.request_id
    other = record(topic="ai.usage")
    assert [name for name, _ in sent_again(letter_of(other), other)] == [REDRIVEN_FROM, REDRIVES]


def test_letters_are_chosen_by_place_reason_topic_and_moment() -> None:
    letter = letter_of(record())
    assert Wanted().takes(letter)
    assert Wanted(frozenset({Place(2, 5)}), "not_json", "ai.requests", 2_000).takes(letter)
    for other in (
        Wanted(frozenset({Place(2, 6)})),
        Wanted(code="too_large"),
        Wanted(topic="ai.usage"),
        Wanted(since=2_001),
    ):
        assert not other.takes(letter)


@given(st.builds(Place, st.integers(0, 10**6), st.integers(0, 10**15)))
def test_a_place_is_read_as_it_is_written(place: Place) -> None:
    assert Place.read(str(place)) == place


@pytest.mark.parametrize("text", ["", "3", "@", "3@", "@17", "3@x", "-1@2", "3@17@4", "3 17"])
def test_what_is_no_place_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="like 3@17"):
        Place.read(text)


@pytest.mark.parametrize("count", [b"9" * 5_000, b"\xff", b"-1", b"many"])
def test_a_count_that_somebody_has_made_up_stops_nobody_who_reads_the_letters(count: bytes) -> None:
    assert letter_of(record((REDRIVES, count))).redrives == 0
