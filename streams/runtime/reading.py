"""How every consumer of this process reads the records of a batch, whatever they hold.

aiokafka (0.14.0) raises out of its fetcher for what it cannot read: a compression that it lacks, bytes that do not
unpack, a header whose name is no UTF-8. Faust then ends the worker, which reads the same batch when it starts again.
And it unpacks whatever it is sent: 4 MB of zstd may become 100 GB.

So the two classes by which aiokafka takes a fetched answer apart are replaced here, once for the process, because it
has no place for others to be handed in. What can be read is read as before, by aiokafka's own code. What cannot be read
is handed over as one record whose value is `Unreadable`: its place, the reason and the bytes as the broker has them. To
whoever decodes values it is one more value that is no event, and goes to the dead letters as these do.

Source of the formats: KIP-98 (record batches), KIP-82 (headers), KIP-110 (zstd); xerial's snappy stream, version 1.
"""

from __future__ import annotations

import logging
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import cramjam
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch
from aiokafka.record.util import decode_varint

from schemas.codec import EscapedName, Headers
from streams.runtime.errors import ReaderDiedError

log = logging.getLogger(__name__)

#: What one batch may unpack to. Producers send at most 4 MB packed, and JSON seldom becomes more than ten times as
#: large.
MOST_UNPACKED = 64 * 1024 * 1024
#: What is unpacked of one partition at a time; the rest of a fetched answer is fetched again.
UNPACKED_AT_ONCE = 16 * 1024 * 1024
#: How often a batch whose checksum is wrong is fetched before it is passed over: the network may have done it.
CHECKSUM_TRIES = 3
#: Batches with a wrong checksum that are remembered at most.
REMEMBERED = 1_000

#: Offset and length, then what the length counts; the place of the format's version; the header of version 2.
PREFIX = struct.Struct(">qi")
MAGIC_AT = 16
BATCH_HEADER = struct.Struct(">qiibIhiqqqhii")
ATTRIBUTES_AT = 21
NEWEST_LEGACY = 1
SMALLEST_LEGACY, SMALLEST_BATCH = 26, BATCH_HEADER.size
CODEC_BITS, APPEND_TIME_BIT = 0x07, 0x08

XERIAL = b"\x82SNAPPY\x00"
XERIAL_HEADER = 16


class Unreadable(bytes):
    """In the place of a record's value: a part of the log that cannot be read, as the broker has it.

    `first` and `last` are the offsets that are passed over, `reason` says why.
    """

    first: int
    last: int
    reason: str

    @classmethod
    def of(cls, raw: bytes, first: int, last: int, reason: str) -> Unreadable:
        made = cls(raw)
        made.first, made.last, made.reason = first, last, reason
        return made


class UnreadableError(Exception):
    """A batch or a record that is not as the format says. The message is for people."""


@dataclass(frozen=True, slots=True)
class _Read:
    """A record as aiokafka's own ones are."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    checksum: None = None


# Compression ------------------------------------------------------------------------------------------------------


def unpack(codec: int, packed: bytes, most: int = MOST_UNPACKED) -> bytes:
    """The records of a compressed batch. Raises UnreadableError: it is no such thing, or becomes larger than `most`."""
    found = _CODECS.get(codec)
    if found is None:
        raise UnreadableError(f"its compression, number {codec}, is not known")
    name, unpacked = found
    try:
        return unpacked(packed, most)
    except (cramjam.DecompressionError, struct.error, ValueError, OverflowError) as error:
        raise UnreadableError(
            f"it is marked as {name} and cannot be unpacked, or becomes larger than {most:,} bytes"
        ) from error


def _stream(into: Callable[[bytes, bytearray], int]) -> Callable[[bytes, int], bytes]:
    """For a format that does not say how large it becomes: a larger room each time, up to the largest."""

    def unpacked(packed: bytes, most: int) -> bytes:
        room = min(most, max(64 * 1024, 8 * len(packed)))
        while True:
            buffer = bytearray(room)
            try:
                return bytes(memoryview(buffer)[: into(packed, buffer)])
            except cramjam.DecompressionError:
                if room >= most:
                    raise
                room = min(most, 8 * room)

    return unpacked


def _snappy(packed: bytes, most: int) -> bytes:
    if not packed.startswith(XERIAL):
        return _snappy_block(packed, most)
    parts, at = [], XERIAL_HEADER
    while at < len(packed):
        (size,) = struct.unpack_from(">i", packed, at)
        if size < 0:
            raise ValueError(size)
        part = _snappy_block(packed[at + 4 : at + 4 + size], most)
        parts.append(part)
        most -= len(part)
        at += 4 + size
    return b"".join(parts)


def _snappy_block(packed: bytes, most: int) -> bytes:
    if cramjam.snappy.decompress_raw_len(packed) > most:
        raise OverflowError
    return bytes(cramjam.snappy.decompress_raw(packed))


_CODECS: dict[int, tuple[str, Callable[[bytes, int], bytes]]] = {
    1: ("gzip", _stream(cramjam.gzip.decompress_into)),
    2: ("snappy", _snappy),
    3: ("lz4", _stream(cramjam.lz4.decompress_into)),
    4: ("zstd", _stream(cramjam.zstd.decompress_into)),
}


# One batch --------------------------------------------------------------------------------------------------------


@dataclass
class Batch:
    """A batch as the broker has it, and aiokafka's reader of it."""

    raw: bytes
    records: Any

    @classmethod
    def of(cls, raw: bytes) -> Batch:
        magic = raw[MAGIC_AT]
        return cls(raw, DefaultRecordBatch(raw) if magic > NEWEST_LEGACY else LegacyRecordBatch(raw, magic))

    @property
    def is_legacy(self) -> bool:
        return self.raw[MAGIC_AT] <= NEWEST_LEGACY

    @property
    def first(self) -> int:
        return int(PREFIX.unpack_from(self.raw)[0])

    @property
    def next(self) -> int:
        return int(self.records.next_offset)

    def slowly(self) -> Iterator[_Read]:
        """The records of an unpacked batch by code of our own, which takes names of headers that are no UTF-8. Raises
        UnreadableError.
        """
        if self.is_legacy:
            raise UnreadableError("it is no batch of messages of the old format")
        return _records(self.raw)

    def unpacked(self) -> Batch:
        """The same batch without compression; one of the old format is left to aiokafka. Raises UnreadableError."""
        if self.is_legacy or not self.records.compression_type:
            return self
        body = unpack(self.records.compression_type, self.raw[SMALLEST_BATCH:])
        header = bytearray(self.raw[:SMALLEST_BATCH])
        struct.pack_into(">i", header, 8, SMALLEST_BATCH - PREFIX.size + len(body))
        header[ATTRIBUTES_AT + 1] &= ~CODEC_BITS
        return Batch.of(bytes(header) + body)


class _Cursor:
    """Reads one value after another."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at

    def number(self) -> int:
        try:
            value, self.at = decode_varint(self.data, self.at)
        except (IndexError, ValueError) as error:
            raise UnreadableError("a number in it is cut off") from error
        return int(value)

    def take(self, size: int) -> bytes:
        if not 0 <= size <= len(self.data) - self.at:
            raise UnreadableError(f"a length in it, {size}, cannot be")
        self.at += size
        return self.data[self.at - size : self.at]

    def nullable(self) -> bytes | None:
        size = self.number()
        return self.take(size) if size >= 0 else None


def _records(raw: bytes) -> Iterator[_Read]:
    base, _, _, _, _, attributes, _, first_timestamp, max_timestamp, *_, count = BATCH_HEADER.unpack_from(raw)
    timestamp_type = int(bool(attributes & APPEND_TIME_BIT))
    cursor = _Cursor(raw, SMALLEST_BATCH)
    for _ in range(count):
        end = cursor.number() + cursor.at
        cursor.take(1)  # Attributes: none are in use.
        timestamp = first_timestamp + cursor.number()
        offset = base + cursor.number()
        key, value = cursor.nullable(), cursor.nullable()
        headers = tuple((_name(cursor.take(cursor.number())), cursor.nullable()) for _ in range(cursor.number()))
        if cursor.at != end:
            raise UnreadableError("a record in it does not end where it says")
        yield _Read(offset, max_timestamp if timestamp_type else timestamp, timestamp_type, key, value, headers)


def _name(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return EscapedName(raw.decode(errors="backslashreplace"))


# A fetched answer -------------------------------------------------------------------------------------------------


class Batches:
    """The batches in a fetched answer: in the place of aiokafka's MemoryRecords."""

    def __init__(self, data: bytes | None) -> None:
        self._data = bytes(data or b"")
        self._at = 0

    def size_in_bytes(self) -> int:
        return len(self._data)

    def has_next(self) -> bool:
        """The last batch of an answer may be cut off: the next fetch begins with it. The first one is never."""
        return self._end() <= len(self._data) or (self._at == 0 and len(self._data) >= PREFIX.size)

    def next_batch(self) -> Batch | Unreadable:
        start, end = self._at, self._end()
        raw = self._data[start:end]
        smallest = SMALLEST_BATCH if len(raw) > MAGIC_AT and raw[MAGIC_AT] > NEWEST_LEGACY else SMALLEST_LEGACY
        if smallest <= len(raw) == end - start:
            self._at = end
            return Batch.of(raw)
        self._at = len(self._data)
        first = int(PREFIX.unpack_from(raw)[0])
        return Unreadable.of(raw, first, first, "it is no whole batch")

    def _end(self) -> int:
        """Where the batch at hand ends; beyond the data where not even its length is there."""
        if len(self._data) - self._at < PREFIX.size:
            return len(self._data) + 1
        _, length = PREFIX.unpack_from(self._data, self._at)
        return self._at + PREFIX.size + max(0, int(length))


class ReadableRecords(fetcher.PartitionRecords):  # type: ignore[misc] # aiokafka has no types
    """The records of a partition in a fetched answer: in the place of aiokafka's PartitionRecords."""

    #: How often each batch with a wrong checksum was seen: topic, partition, first offset.
    _wrong: ClassVar[Counter[tuple[str, int, int]]] = Counter()

    def _unpack_records(self) -> Iterator[Any]:
        left = UNPACKED_AT_ONCE
        while left > 0 and self._records.has_next():
            batch = self._records.next_batch()
            if isinstance(batch, Unreadable):
                yield self._pass_over(batch)
                continue
            wrong = self._has_wrong_checksum(batch)
            if wrong and self._may_be_right_next_time(batch):
                return
            if not wrong and self._is_left_out(batch.records):
                self.next_fetch_offset = batch.next
                continue
            for record in self._whole(batch, "its checksum is wrong") if wrong else self._read(batch):
                left -= len(record.value or b"") + len(record.key or b"")
                yield record
            self.next_fetch_offset = max(self.next_fetch_offset, batch.next)

    def _read(self, batch: Batch) -> Iterator[Any]:
        try:
            yield from self._readable(batch.unpacked())
        except UnreadableError as fault:
            yield from self._whole(batch, str(fault))

    def _readable(self, batch: Batch) -> Iterator[Any]:
        """By aiokafka's code, and from where that gives up by our own. Raises UnreadableError where that does, too."""
        try:
            yield from self._new_ones(batch.records)
        except Exception as error:  # noqa: BLE001 - whatever the library makes of somebody's bytes
            log.debug("batch_read_slowly: %s@%s: %s", self._tp, self.next_fetch_offset, type(error).__name__)
            yield from self._new_ones(batch.slowly())

    def _new_ones(self, records: Any) -> Iterator[Any]:
        for record in records:
            # A fetch brings the whole batch in which its offset is.
            if record.offset < self.next_fetch_offset:
                continue
            found = self._consumer_record(self._tp, record)
            self.next_fetch_offset = record.offset + 1
            yield found

    def _whole(self, batch: Batch, reason: str) -> Iterator[Any]:
        """A batch of which no more can be read."""
        first = max(self.next_fetch_offset, batch.first)
        last = max(first, batch.next - 1)
        yield self._pass_over(Unreadable.of(batch.raw, first, last, reason))

    def _pass_over(self, part: Unreadable) -> Any:
        place = self._tp.topic, self._tp.partition, part.first, part.last
        log.warning("records_unreadable: %s[%s]@%s to %s: %s", *place, part.reason)
        self.next_fetch_offset = part.last + 1
        # Whoever has handled it has handled all of it.
        return self._consumer_record(self._tp, _Read(part.last, -1, 0, None, part))

    def _has_wrong_checksum(self, batch: Batch) -> bool:
        return bool(self._check_crcs) and not batch.records.validate_crc()

    def _may_be_right_next_time(self, batch: Batch) -> bool:
        if len(self._wrong) > REMEMBERED:
            self._wrong.clear()
        place = (self._tp.topic, self._tp.partition, batch.first)
        self._wrong[place] += 1
        return self._wrong[place] < CHECKSUM_TRIES

    def _is_left_out(self, records: Any) -> bool:
        """Markers of transactions, and to those who read committed records what belongs to an aborted one."""
        if self._isolation_level == fetcher.READ_COMMITTED and records.producer_id is not None:
            self._consume_aborted_up_to(records.base_offset)
            if records.is_control_batch:
                if self._contains_abort_marker(records):
                    self._aborted_producers.discard(records.producer_id)
            elif records.is_transactional and records.producer_id in self._aborted_producers:
                return True
        return bool(records.is_control_batch)

    def _contains_abort_marker(self, records: Any) -> bool:
        try:
            return bool(super()._contains_abort_marker(records))
        except Exception:  # noqa: BLE001 - a marker of a kind that is not known aborts nothing
            return False


def positions(consumer: Any) -> dict[Any, int]:
    """The next offset of each assigned partition that `consumer` will hand over, where that is known.

    aiokafka's own `position` waits where it is not.
    """
    subscription = consumer._subscription.subscription
    assignment = subscription.assignment if subscription is not None else None
    if assignment is None:
        return {}
    states = ((tp, assignment.state_value(tp)) for tp in assignment.tps)
    return {tp: state.position for tp, state in states if state.has_valid_position}


def check_alive(consumer: Any) -> None:
    """Raises ReaderDiedError for one that will never bring anything again: the task that fetches has ended, which
    aiokafka tells nobody.
    """
    if consumer._fetcher is not None and consumer._fetcher.error_future.done():
        raise ReaderDiedError


fetcher.MemoryRecords = Batches
fetcher.PartitionRecords = ReadableRecords
