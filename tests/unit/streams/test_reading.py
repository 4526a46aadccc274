"""What consumers make of the bytes that a broker sends, whatever is in them."""

from __future__ import annotations

from typing import Any

import cramjam
import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import EscapedName
from streams.runtime import reading
from streams.runtime.reading import Batches, ReadableRecords, Unreadable, UnreadableError, unpack
from tests.support.values.batches import CODECS, NOT_UTF8, STAND_IN, Sent, batch, signed, with_codec
from tests.support.values.batches import with_name_that_is_no_utf8 as spoilt

PLACE = TopicPartition("ai.requests", 0)
TEXT = b"the same again and again " * 400
PLAIN = [Sent(b"first", headers=[("a", b"1"), ("b", None)]), Sent(None), Sent(b"", None), Sent(TEXT)]


def read(*raw: bytes, aborted: Any = None, committed: bool = True, start: int = 0) -> list[Any]:
    """All records of a fetched answer, as a consumer is given them."""
    level = fetcher.READ_COMMITTED if committed else fetcher.READ_UNCOMMITTED
    return list(ReadableRecords(PLACE, Batches(b"".join(raw)), aborted, start, None, None, True, level))


def told(records: list[Any]) -> list[tuple[int, bytes | None, bytes | None, Any]]:
    return [(one.offset, one.key, one.value, one.headers) for one in records]


def test_every_consumer_of_the_process_reads_so() -> None:
    assert fetcher.PartitionRecords is ReadableRecords
    assert fetcher.MemoryRecords is Batches


@pytest.mark.parametrize("codec", CODECS)
def test_records_are_the_same_in_every_compression(codec: str) -> None:
    found = read(batch(*PLAIN, codec=codec, first=5))
    assert told(found) == [(5 + n, one.key, one.value, tuple(one.headers)) for n, one in enumerate(PLAIN)]
    assert [one.timestamp for one in found] == [1_000, 1_001, 1_002, 1_003]


@pytest.mark.parametrize("codec", CODECS)
def test_a_name_that_is_no_utf8_is_escaped_and_the_records_around_it_are_read(codec: str) -> None:
    bad = Sent(b"bad", headers=[(STAND_IN, b"x"), ("fine", None)])
    plain = spoilt(batch(Sent(b"before"), bad, Sent(b"after"), first=7))
    raw = plain if codec == "none" else with_codec(plain, CODECS[codec], packed(codec, plain[61:]))
    found = read(raw)
    assert [(one.offset, one.value) for one in found] == [(7, b"before"), (8, b"bad"), (9, b"after")]
    name, value = found[1].headers[0]
    assert (name, value) == ("\\xc3(\\xff", b"x")
    assert isinstance(name, EscapedName)
    assert found[1].headers[1] == ("fine", None)


def packed(codec: str, body: bytes) -> bytes:
    made = {"snappy": cramjam.snappy.compress_raw}.get(codec) or getattr(cramjam, codec).compress
    return bytes(made(body))


@pytest.mark.parametrize("codec", [1, 2, 3, 4, 5, 7])
def test_a_batch_that_does_not_unpack_is_one_unreadable_record_and_the_others_are_read(codec: int) -> None:
    broken = with_codec(batch(Sent(b"a"), Sent(b"b"), first=3), codec, b"\x00garbage that is none of these")
    found = read(batch(Sent(b"0"), Sent(b"1"), Sent(b"2")), broken, batch(Sent(b"5"), first=5))
    assert [one.offset for one in found] == [0, 1, 2, 4, 5]
    part = found[3].value
    assert isinstance(part, Unreadable)
    assert (bytes(part), part.first, part.last) == (broken, 3, 4)
    assert part.reason


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_a_batch_that_would_fill_the_memory_is_not_unpacked(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_UNPACKED", 1_000_000)
    body = bytes(5_000_000)
    with pytest.raises(UnreadableError, match="1,000,000 bytes"):
        unpack(CODECS[codec], packed(codec, body), 1_000_000)
    assert unpack(CODECS[codec], packed(codec, body[:900_000]), 1_000_000) == body[:900_000]


def test_xerials_snappy_of_the_java_clients_is_read_block_by_block() -> None:
    blocks = [TEXT[at : at + 1_000] for at in range(0, len(TEXT), 1_000)]
    stream = b"\x82SNAPPY\x00" + (1).to_bytes(4, "big") * 2
    for one in blocks:
        part = bytes(cramjam.snappy.compress_raw(one))
        stream += len(part).to_bytes(4, "big") + part
    assert unpack(CODECS["snappy"], stream) == TEXT
    for cut in (stream[:-3], stream[:17], stream[:16] + b"\xff\xff\xff\xff"):
        with pytest.raises(UnreadableError):
            unpack(CODECS["snappy"], cut)


def test_a_batch_with_a_wrong_checksum_is_fetched_again_and_at_last_passed_over() -> None:
    good = batch(Sent(b"a"), first=40)
    bad = good[:-1] + bytes([good[-1] ^ 1])
    after = batch(Sent(b"b"), first=41)
    assert read(bad, after, start=40) == []
    assert read(bad, after, start=40) == []
    found = read(bad, after, start=40)
    assert [one.offset for one in found] == [40, 41]
    assert isinstance(found[0].value, Unreadable)


def test_what_cannot_be_read_further_is_passed_over_from_there_on() -> None:
    raw = batch(Sent(b"first"), Sent(b"second"), Sent(b"third"), first=10)
    at = raw.index(b"second") - 1
    found = read(signed(raw[:at] + b"\x7f" + raw[at + 1 :]), batch(Sent(b"next"), first=13))
    assert [one.offset for one in found] == [10, 12, 13]
    part = found[1].value
    assert isinstance(part, Unreadable)
    assert (part.first, part.last) == (11, 12)


def test_an_answer_that_ends_within_its_second_batch_brings_the_first() -> None:
    whole, cut = batch(Sent(b"a")), batch(Sent(b"b"), first=1)[:-4]
    assert [one.value for one in read(whole, cut)] == [b"a"]
    (found,) = read(cut)
    assert isinstance(found.value, Unreadable), "nothing more would ever come of it"


def test_records_before_the_place_that_was_asked_for_are_left_out() -> None:
    raw = batch(*(Sent(str(n).encode()) for n in range(5)), codec="lz4", first=20)
    assert [one.offset for one in read(raw, start=23)] == [23, 24]


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_records_of_an_aborted_transaction_are_left_out_where_committed_ones_are_read(codec: str) -> None:
    aborted = batch(Sent(b"aborted"), first=0, transactional=True, producer=9, codec=codec)
    kept = batch(Sent(b"kept"), first=1)
    assert [one.value for one in read(aborted, kept, aborted=[(9, 0)])] == [b"kept"]
    assert len(read(aborted, kept, aborted=[(9, 0)], committed=False)) == 2


def test_the_position_goes_on_over_what_is_left_out() -> None:
    aborted = batch(Sent(b"a"), Sent(b"b"), first=0, transactional=True, producer=9)
    records = ReadableRecords(PLACE, Batches(aborted), [(9, 0)], 0, None, None, True, fetcher.READ_COMMITTED)
    assert list(records) == []
    assert records.next_fetch_offset == 2


def test_no_more_is_unpacked_at_once_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "UNPACKED_AT_ONCE", 15_000)
    raw = b"".join(batch(Sent(bytes(10_000)), codec="zstd", first=n) for n in range(5))
    records = ReadableRecords(PLACE, Batches(raw), None, 0, None, None, True, fetcher.READ_COMMITTED)
    assert [one.offset for one in records] == [0, 1]
    assert records.next_fetch_offset == 2, "the rest is fetched again"


@given(st.data())
def test_whatever_the_bytes_are_a_consumer_gets_on(data: st.DataObject) -> None:
    codec = data.draw(st.sampled_from(sorted(CODECS)))
    raw = bytearray(batch(Sent(b"one", headers=[("a", b"1")]), Sent(TEXT), codec=codec, first=3))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(21, len(raw) - 1))] = data.draw(st.integers(0, 255))
    records = ReadableRecords(PLACE, Batches(signed(bytes(raw))), None, 3, None, None, True, fetcher.READ_COMMITTED)
    for one in records:
        assert one.value is None or isinstance(one.value, bytes)
    assert records.next_fetch_offset > 3, "it would be fetched for ever"


def test_the_bytes_that_stand_for_no_utf8_are_none() -> None:
    with pytest.raises(UnicodeDecodeError):
        NOT_UTF8.decode()
