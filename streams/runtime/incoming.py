"""One input record as the stages see it, whoever has read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from schemas.codec import Headers
from schemas.dead_letter import Origin
from streams.runtime.reading import Unreadable


@dataclass(frozen=True, slots=True)
class Incoming:
    """One input record as the pure code may see it. `timestamp` is in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def origin(self) -> Origin:
        return Origin(self.topic, self.partition, self.offset, self.timestamp)

    @property
    def place(self) -> str:
        """For logs."""
        return f"{self.topic}[{self.partition}]@{self.offset}"

    @property
    def unreadable(self) -> str | None:
        """Why this part of the log cannot be read, for people; None for a record."""
        part = self.value
        if not isinstance(part, Unreadable):
            return None
        which = f"offset {part.last}" if part.first == part.last else f"offsets {part.first} to {part.last}"
        return f"The batch at {which} cannot be read: {part.reason}. The value is the whole batch as the broker has it."


def incoming_from(message: Any) -> Incoming:
    return Incoming(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp=round((message.timestamp or 0) * 1000),
        key=message.key,
        value=message.value,
        headers=tuple(message.headers or ()),
    )
