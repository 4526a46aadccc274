"""Records as the broker has them, and how far the workers have read."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient

from bench.chaos_parts.names import GROUPS, TICKS
from tests.support.reader.topics import reading

#: Seconds without any record after which a topic cannot be read to its end.
STUCK = 30.0


@dataclass(frozen=True)
class Record:
    """One record. `timestamp` is in milliseconds since 1970."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()

    @property
    def at(self) -> float:
        """Seconds since 1970."""
        return self.timestamp / 1000

    @property
    def place(self) -> tuple[int, int]:
        return self.partition, self.offset

    def header(self, name: str) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)

    def json(self) -> Any:
        return json.loads(self.value or b"")


async def read_all(servers: str, topics: Sequence[str]) -> dict[str, list[Record]]:
    """All records of these topics, in order of partition and offset. Raises RuntimeError when they cannot be read."""
    found: dict[str, list[Record]] = {topic: [] for topic in topics}
    async with reading(servers, *topics, from_start=True) as consumer:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        moved = time.monotonic()
        while left := [place for place, end in ends.items() if await consumer.position(place) < end]:
            if time.monotonic() - moved > STUCK:
                raise RuntimeError(f"cannot be read to their end: {left}")
            for place, records in (await consumer.getmany(timeout_ms=500)).items():
                moved = time.monotonic()
                found[place.topic] += [_record(record) for record in records if record.offset < ends[place]]
    for records in found.values():
        records.sort(key=lambda record: record.place)
    return found


def _record(raw: Any) -> Record:
    return Record(raw.partition, raw.offset, raw.timestamp, raw.key, raw.value, tuple(raw.headers or ()))


async def behind(servers: str, groups: Sequence[str] = GROUPS) -> dict[str, int]:
    """Records that are not acknowledged yet, by `group:topic/partition`, where there are any. Timers do not count."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers, request_timeout_ms=10_000)
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)
    found: dict[str, int] = {}
    try:
        await admin.start()
        await consumer.start()
        for group in groups:
            places = {
                place: known.offset
                for place, known in (await admin.list_consumer_group_offsets(group)).items()
                if known.offset >= 0 and place.topic != TICKS
            }
            ends = await consumer.end_offsets(list(places)) if places else {}
            for place, offset in places.items():
                if ends[place] > offset:
                    found[f"{group}:{place.topic}/{place.partition}"] = ends[place] - offset
    finally:
        await asyncio.gather(consumer.stop(), admin.close(), return_exceptions=True)
    return found
