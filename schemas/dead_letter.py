"""Dead letters: the original record, byte for byte, with headers that say where it was and why it is here.

The header names are Spring Kafka's (`KafkaHeaders.DLT_*`), so that tools made for those can redrive these. Numbers are
big-endian integers, four bytes for a partition and eight for an offset and a timestamp, as Spring writes them.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.codec import Headers, header

TOPIC = "kafka_dlt-original-topic"
PARTITION = "kafka_dlt-original-partition"
OFFSET = "kafka_dlt-original-offset"
TIMESTAMP = "kafka_dlt-original-timestamp"
TIMESTAMP_TYPE = "kafka_dlt-original-timestamp-type"
ERROR_NAME = "kafka_dlt-exception-fqcn"
ERROR_MESSAGE = "kafka_dlt-exception-message"

#: Written where a value or a key was too large for a letter; the size in bytes is all that is left of it.
VALUE_OMITTED = "spillway-omitted-bytes"
KEY_OMITTED = "spillway-omitted-key-bytes"
#: The original had neither a key nor a value: the letter's value, of no bytes, stands for none.
NO_VALUE = "spillway-no-value"

#: On the letter of records that were deleted before they were read: who has not read them, and the last one (8 bytes).
GONE_GROUP = "spillway-gone-group"
GONE_LAST = "spillway-gone-last-offset"

#: The code of such a letter.
RECORDS_GONE = "records_gone"

_MARKS = frozenset({VALUE_OMITTED, KEY_OMITTED, NO_VALUE, GONE_GROUP, GONE_LAST})

#: More than this of a record's own headers is not carried over: they would burst the record.
MAX_HEADER_BYTES = 64 * 1024


@dataclass(frozen=True)
class Origin:
    """Where a record was. `timestamp` is in milliseconds since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: str = "CREATE_TIME"

    @property
    def identity(self) -> str:
        """Names the record: the same for each of its deliveries, never for two records."""
        return f"{self.topic}/{self.partition}/{self.offset}/{self.timestamp}"


@dataclass(frozen=True)
class DeadLetter:
    """A record that could not be processed. Key and value are the original bytes."""

    origin: Origin
    code: str
    message: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    def to_headers(self) -> Headers:
        """The original headers, as far as they fit, then those that tell the story."""
        return (
            *_fitting(self.headers),
            (TOPIC, self.origin.topic.encode()),
            (PARTITION, self.origin.partition.to_bytes(4, "big")),
            (OFFSET, self.origin.offset.to_bytes(8, "big")),
            (TIMESTAMP, self.origin.timestamp.to_bytes(8, "big", signed=True)),
            (TIMESTAMP_TYPE, self.origin.timestamp_type.encode()),
            (ERROR_NAME, f"spillway.{self.code}".encode()),
            (ERROR_MESSAGE, self.message.encode()),
        )

    @classmethod
    def from_record(cls, key: bytes | None, value: bytes | None, headers: Headers) -> DeadLetter:
        """Read back what `to_headers` wrote. Raises ValueError where a header is missing."""

        def need(name: str) -> bytes:
            found = header(headers, name)
            if found is None:
                raise ValueError(f"not a dead letter: the header {name} is missing")
            return found

        origin = Origin(
            topic=need(TOPIC).decode(),
            partition=int.from_bytes(need(PARTITION), "big"),
            offset=int.from_bytes(need(OFFSET), "big"),
            timestamp=int.from_bytes(need(TIMESTAMP), "big", signed=True),
            timestamp_type=need(TIMESTAMP_TYPE).decode(),
        )
        own = tuple(pair for pair in headers if not pair[0].startswith("kafka_dlt-"))
        need(ERROR_NAME)
        return cls(origin, code_of(headers), need(ERROR_MESSAGE).decode(), key, value, own)


@dataclass(frozen=True)
class Gap:
    """Offsets of a partition that were deleted before a consumer group had read them, `first` to `last`."""

    group: str
    topic: str
    partition: int
    first: int
    last: int

    @property
    def count(self) -> int:
        """Offsets, so at most so many records."""
        return self.last - self.first + 1

    @property
    def place(self) -> str:
        return f"{self.topic}[{self.partition}]"

    @property
    def identity(self) -> str:
        """The same for each letter of the gap, even where more was deleted in between."""
        return f"{RECORDS_GONE}/{self.group}/{self.topic}/{self.partition}/{self.first}"

    @property
    def story(self) -> str:
        return f"offsets {self.first} to {self.last} ({self.count}) were deleted before {self.group} had read them"

    def to_headers(self) -> Headers:
        """What the headers of every letter do not say."""
        return (GONE_GROUP, self.group.encode()), (GONE_LAST, self.last.to_bytes(8, "big"))

    @classmethod
    def of(cls, letter: DeadLetter) -> Gap | None:
        """The gap that a letter tells of; None where it tells of none."""
        group, last = header(letter.headers, GONE_GROUP), header(letter.headers, GONE_LAST)
        if letter.code != RECORDS_GONE or group is None or last is None:
            return None
        origin = letter.origin
        return cls(group.decode(), origin.topic, origin.partition, origin.offset, int.from_bytes(last, "big"))


def code_of(headers: Headers) -> str:
    """Why a dead letter is one; empty where it does not say."""
    name = header(headers, ERROR_NAME) or b""
    return name.decode(errors="replace").removeprefix("spillway.")


def _fitting(headers: Headers) -> Headers:
    kept: list[tuple[str, bytes | None]] = []
    size = 0
    for name, value in headers:
        if name.startswith("kafka_dlt-") or name in _MARKS:
            continue
        size += len(name.encode()) + len(value or b"")
        if size > MAX_HEADER_BYTES:
            break
        # A producer takes no other kind of text than str itself (EscapedName).
        kept.append((str(name), value))
    return tuple(kept)
