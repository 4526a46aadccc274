"""A stretch of a topic, from a moment until where it ended when the audit began, and what retention has left of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError
from aiokafka.structs import OffsetAndMetadata

from app.kafka import STALLED, Cluster, Ending, explained

_POLL_MS = 200
_COORDINATOR_RETRY = 0.2
_FETCH_BYTES = 4 * 1024 * 1024


@dataclass
class Stretch:
    """Offsets by partition, from the first to just before the last.

    `held_since` is the timestamp (milliseconds) since when a partition is complete: 0 where nothing was removed of the
    stretch. It is known once the stretch has been read.
    """

    topic: str
    first: dict[int, int]
    end: dict[int, int]
    cut: frozenset[int]
    begun: dict[int, int]
    held_since: dict[int, int] = field(default_factory=dict)

    @property
    def records(self) -> int:
        return sum(max(self.end[partition] - self.first[partition], 0) for partition in self.end)

    def before(self) -> Stretch:
        """What the topic holds from before this stretch."""
        return Stretch(self.topic, self.begun, self.first, frozenset(), self.begun)

    def note(self, record: ConsumerRecord) -> None:
        if record.partition in self.cut and record.offset == self.first[record.partition]:
            self.held_since[record.partition] = record.timestamp

    def since(self, partition: int) -> int:
        return self.held_since.get(partition, 0)


async def survey(
    consumer: AIOKafkaConsumer, partitions: list[TopicPartition], since: int, until: int | None, now: int
) -> Stretch:
    """Where a topic's records of these moments are (milliseconds since 1970). `until` is None for all that is there.

    Where records were removed and the first one left is not older than `since`, part of the stretch may be gone.
    """
    begun = {tp.partition: offset for tp, offset in (await consumer.beginning_offsets(partitions)).items()}
    end = {tp.partition: offset for tp, offset in (await consumer.end_offsets(partitions)).items()}
    first = await _offsets(consumer, partitions, max(since, 0), end)
    if until is not None and until < now:
        end = await _offsets(consumer, partitions, until, end)
    cut = frozenset(number for number, offset in begun.items() if offset > 0 and first[number] <= offset)
    stretch = Stretch(partitions[0].topic, first, end, cut, begun)
    # Where nothing is left, nothing is known until now; a record that is read says better.
    stretch.held_since = dict.fromkeys(cut, now)
    return stretch


async def _offsets(
    consumer: AIOKafkaConsumer, partitions: list[TopicPartition], moment: int, end: Mapping[int, int]
) -> dict[int, int]:
    found = await consumer.offsets_for_times(dict.fromkeys(partitions, moment))
    return {
        tp.partition: end[tp.partition] if place is None else min(place.offset, end[tp.partition])
        for tp, place in found.items()
    }


async def read(cluster: Cluster, stretch: Stretch, *, compacted: bool = False) -> AsyncIterator[ConsumerRecord]:
    """The stretch's records, in order within a partition. Raises KafkaUnavailableError when nothing more comes.

    With a consumer of its own: aiokafka's does not always stop after it was assigned other partitions.
    """
    places = {TopicPartition(stretch.topic, number): end for number, end in stretch.end.items()}
    left = {tp for tp, end in places.items() if stretch.first[tp.partition] < end}
    if not left:
        return
    async with reader(cluster) as consumer:
        consumer.assign(list(left))
        for tp in left:
            consumer.seek(tp, stretch.first[tp.partition])
        ending = Ending(consumer, stretch.topic)
        while left:
            batches = await consumer.getmany(*left, timeout_ms=_POLL_MS)
            for tp, records in batches.items():
                for record in records:
                    if record.offset < places[tp]:
                        stretch.note(record)
                        yield record
            left = {tp for tp in left if await consumer.position(tp) < places[tp]}
            if batches:
                ending.heard(left)
            if ending.is_here(left, compacted=compacted):
                return


@asynccontextmanager
async def reader(cluster: Cluster, **more: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer that belongs to no group and leaves no trace. What Kafka raises is KafkaUnavailableError."""
    async with explained(cluster):
        consumer = cluster.consumer(**{"max_partition_fetch_bytes": _FETCH_BYTES, **more})
        try:
            await consumer.start()
            yield consumer
        finally:
            await consumer.stop()


async def partitions_of(admin: AIOKafkaAdminClient, topics: tuple[str, ...]) -> dict[str, list[TopicPartition]]:
    """The topics that exist, with their partitions. Lists all topics: asking for one by name might create it."""
    known = {found["topic"]: found["partitions"] for found in await admin.describe_topics()}
    return {
        topic: [TopicPartition(topic, partition["partition"]) for partition in known[topic]]
        for topic in topics
        if topic in known
    }


async def committed(cluster: Cluster, admin: AIOKafkaAdminClient, group: str) -> dict[tuple[str, int], int]:
    """Up to where the workers have acknowledged each partition."""
    async with explained(cluster):
        async with asyncio.timeout(STALLED):
            found = await _offsets_of(admin, group)
    return {(tp.topic, tp.partition): place.offset for tp, place in found.items() if place.offset >= 0}


async def _offsets_of(admin: AIOKafkaAdminClient, group: str) -> Mapping[TopicPartition, OffsetAndMetadata]:
    """A new cluster makes its topic of groups when it is first asked for one, and says so meanwhile."""
    while True:
        try:
            found: Mapping[TopicPartition, OffsetAndMetadata] = await admin.list_consumer_group_offsets(group)
        except GroupCoordinatorNotAvailableError:
            await asyncio.sleep(_COORDINATOR_RETRY)
        else:
            return found
