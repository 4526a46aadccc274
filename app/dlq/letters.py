"""A dead letter as an operator sees it: where it lies, where it came from, why; not what is in it. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from schemas.codec import header
from schemas.dead_letter import KEY_OMITTED, NO_VALUE, RECORDS_GONE, VALUE_OMITTED, DeadLetter, Origin
from streams.admit.parse import id_of_record
from streams.topology import REQUESTS

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

#: On a record that was sent again: the letter that it was, and how often it has been one.
REDRIVEN_FROM = "spillway-redriven-from"
REDRIVES = "spillway-redrives"

#: Of a count.
MOST_DIGITS = 9

#: Its value is a batch as the broker has it.
UNREADABLE = "unreadable"
#: Its work was done: settlement has read it, and only the reply found no topic.
REPLY_LOST = "reply_undeliverable"


@dataclass(frozen=True, order=True)
class Place:
    """Where a letter lies in `ai.dead-letters`."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}@{self.offset}"

    @classmethod
    def read(cls, text: str) -> Place:
        """The place in a text like 3@17. Raises ValueError."""
        partition, at, offset = text.partition("@")
        if not (at and partition.isdecimal() and offset.isdecimal()):
            raise ValueError(f"{text!r} is no place of a dead letter; write it as the list does, like 3@17.")
        return cls(int(partition), int(offset))


@dataclass(frozen=True)
class Letter:
    """`buried_at` is in milliseconds since 1970, `size` in bytes; `redrives`: how often it was sent again before.

    `origin` is None for a record that is no dead letter: somebody else has written it there.
    """

    place: Place
    buried_at: int
    code: str
    message: str
    origin: Origin | None
    size: int
    redrives: int = 0
    omitted: bool = False
    empty: bool = False

    @property
    def time(self) -> datetime:
        return datetime.fromtimestamp(self.buried_at / 1000, UTC)

    def as_data(self) -> dict[str, Any]:
        """For programs."""
        return {
            "place": str(self.place),
            "time": self.time.isoformat(timespec="milliseconds"),
            "code": self.code,
            "message": self.message,
            "topic": self.origin.topic if self.origin else None,
            "partition": self.origin.partition if self.origin else None,
            "offset": self.origin.offset if self.origin else None,
            "size": self.size,
            "redrives": self.redrives,
        }


def letter_of(record: ConsumerRecord) -> Letter:
    """What is known of a record of `ai.dead-letters`."""
    place, size = Place(record.partition, record.offset), len(record.value or b"")
    headers = tuple(record.headers)
    try:
        found = DeadLetter.from_record(record.key, record.value, headers)
    except ValueError as error:
        return Letter(place, record.timestamp, "unknown", f"{error}", None, size)
    return Letter(
        place,
        record.timestamp,
        found.code,
        found.message,
        found.origin,
        size,
        redrives_of(headers),
        omitted=any(header(headers, name) is not None for name in (VALUE_OMITTED, KEY_OMITTED)),
        empty=header(headers, NO_VALUE) is not None,
    )


def redrives_of(headers: Collection[tuple[str, bytes | None]]) -> int:
    """How often it says that it was sent again. The header may be anybody's, and must not stop whoever reads it."""
    count = (header(headers, REDRIVES) or b"0").decode(errors="replace")
    return int(count) if count.isdecimal() and len(count) <= MOST_DIGITS else 0


@dataclass(frozen=True)
class Wanted:
    """Which letters are meant. None: all of that respect. `since` is in milliseconds since 1970."""

    places: frozenset[Place] | None = None
    code: str | None = None
    topic: str | None = None
    since: int = 0

    def takes(self, letter: Letter) -> bool:
        return (
            (self.places is None or letter.place in self.places)
            and self.code in (None, letter.code)
            and self.topic in (None, letter.origin.topic if letter.origin else None)
            and letter.buried_at >= self.since
        )


def why_not(letter: Letter, topics: Collection[str]) -> str | None:
    """Why a letter cannot be sent to where it came from; None where it can. `topics` are those that workers read."""
    origin = letter.origin
    if origin is None:
        return "it is no dead letter of Spillway's"
    reasons = (
        (origin.topic not in topics, f"no worker reads {origin.topic}"),
        (letter.omitted, "its value was too large to be kept"),
        (letter.empty, "it had neither a key nor a value"),
        (letter.code == RECORDS_GONE, "its records were deleted before they were read: there is nothing left to send"),
        (letter.code == UNREADABLE, "it is a part of the log that cannot be read, and no record"),
        (
            letter.code == REPLY_LOST,
            "its work was done, and only its reply found no topic; the response is on ai.responses",
        ),
    )
    return next((reason for applies, reason in reasons if applies), None)


def sent_again(letter: Letter, record: ConsumerRecord) -> list[tuple[str, bytes | None]]:
    """The headers of the original, and those that tell that it has been a letter.

    A request without an id had one from its place, which is another one now: it keeps its id by a header.
    """
    found = DeadLetter.from_record(record.key, record.value, tuple(record.headers))
    kept = [pair for pair in found.headers if pair[0] not in (REDRIVEN_FROM, REDRIVES)]
    if found.origin.topic == REQUESTS and header(kept, "ce_id") is None:
        kept.append(("ce_id", id_of_record(found.origin.identity).encode()))
    mark = (REDRIVEN_FROM, str(letter.place).encode()), (REDRIVES, str(letter.redrives + 1).encode())
    return [*kept, *mark]
