"""A record on its way to Kafka, as the pure code makes it and the outbox sends it."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.codec import Headers


@dataclass(frozen=True, slots=True)
class Record:
    """`partition` None leaves the choice to the producer's partitioner (by key)."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None
