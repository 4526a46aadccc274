"""Dead letters: whatever a record holds, one is written, if need be with less of it."""

from __future__ import annotations

import logging
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError

from schemas.codec import EscapedName
from schemas.dead_letter import KEY_OMITTED, NO_VALUE, VALUE_OMITTED, DeadLetter
from streams.records import Record
from streams.runtime.incoming import Incoming
from streams.runtime.letters import bury, dead_letter
from streams.runtime.outbox import Outbox, UndeliverableError
from streams.runtime.reading import Unreadable
from streams.topology import DEAD_LETTERS

VALUE = b'{"prompt": "hello"}'


def record(**fields: Any) -> Incoming:
    told = {"key": b"acme", "value": VALUE, "headers": (("mine", b"1"),)} | fields
    return Incoming("ai.requests", 3, 17, 1_000, **told)


class Topic:
    """Takes letters up to a size, as a broker and a producer do."""

    def __init__(self, most: int, error: type[Exception] = MessageSizeTooLargeError) -> None:
        self.most = most
        self.error = error
        self.letters: list[Record] = []

    async def publish(self, letter: Record) -> None:
        size = len(letter.key or b"") + len(letter.value or b"") + sum(len(value or b"") for _, value in letter.headers)
        if letter.key is None and letter.value is None:
            raise UndeliverableError("a record needs a key or a value")
        if size > self.most:
            raise self.error
        self.letters.append(letter)


async def buried(incoming: Incoming, topic: Topic) -> list[Record]:
    outbox: Any = topic
    await bury(outbox, incoming, "not_json", "it is no JSON")
    return topic.letters


async def test_a_letter_has_the_key_the_value_and_the_headers_of_its_record() -> None:
    (letter,) = await buried(record(), Topic(10_000))
    assert (letter.topic, letter.key, letter.value) == (DEAD_LETTERS, b"acme", VALUE)
    found = DeadLetter.from_record(letter.key, letter.value, letter.headers)
    assert (found.code, found.message, found.headers) == ("not_json", "it is no JSON", (("mine", b"1"),))


@pytest.mark.parametrize("key", [b"acme", None])
async def test_a_value_that_is_too_large_is_left_out(key: bytes | None) -> None:
    (letter,) = await buried(record(key=key, value=bytes(20_000)), Topic(10_000))
    assert (letter.key, letter.value) == (key, None if key else b"")
    assert dict(letter.headers)[VALUE_OMITTED] == b"20000"


@pytest.mark.parametrize("error", [MessageSizeTooLargeError, UndeliverableError])
async def test_so_is_a_key_that_is_too_large_and_so_are_headers(error: type[Exception]) -> None:
    (letter,) = await buried(record(key=bytes(30_000), headers=(("mine", bytes(30_000)),)), Topic(10_000, error))
    assert (letter.key, letter.value) == (None, b"")
    told = dict(letter.headers)
    assert (told[KEY_OMITTED], told[VALUE_OMITTED]) == (b"30000", str(len(VALUE)).encode())
    assert DeadLetter.from_record(None, b"", letter.headers).origin == record().origin


async def test_where_not_even_that_is_taken_its_place_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        assert await buried(record(), Topic(10)) == []
    assert "dead_letter_lost: ai.requests[3]@17: not_json" in caplog.text


async def test_a_broker_that_is_away_is_waited_for() -> None:
    with pytest.raises(KafkaConnectionError):
        await buried(record(), Topic(10, KafkaConnectionError))


async def test_a_record_without_key_and_value_has_a_letter_that_says_so() -> None:
    (letter,) = await buried(record(key=None, value=None), Topic(10_000))
    assert (letter.key, letter.value) == (None, b"")
    assert dict(letter.headers)[NO_VALUE] == b"1"


async def test_an_outbox_refuses_what_its_producer_cannot_send() -> None:
    outbox = Outbox(lambda: cast(Any, object()))
    outbox._producer = cast(Any, object())
    with pytest.raises(UndeliverableError, match=r"ai\.dead-letters needs a key or a value"):
        await outbox.post(Record(DEAD_LETTERS, None, None))


def test_a_part_that_cannot_be_read_goes_as_the_bytes_that_it_is() -> None:
    part = Unreadable.of(b"\x00\x01", 15, 17, "it does not unpack")
    incoming = record(key=None, value=part, headers=())
    assert incoming.unreadable is not None
    assert incoming.unreadable.startswith("The batch at offsets 15 to 17 cannot be read: it does not unpack.")
    letter = dead_letter(incoming, "unreadable", incoming.unreadable)
    assert (type(letter.value), letter.value) == (bytes, b"\x00\x01")


def test_names_that_are_no_utf8_go_as_they_are_shown() -> None:
    headers = ((EscapedName("\\xff"), b"1"), ("b", None))
    letter = dead_letter(record(headers=headers), "unreadable_header", "no")
    assert letter.headers[:2] == (("\\xff", b"1"), ("b", None))
    assert all(type(name) is str for name, _ in letter.headers), "a producer takes no other"
