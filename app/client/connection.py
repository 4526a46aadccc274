"""Kafka for the client: a producer, readers without a group, and how many partitions a topic has."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from app import kafka
from app.client.errors import ConnectionLostError, SpillwayError
from app.kafka import Cluster
from streams.topology import MAX_RECORD_BYTES

log = logging.getLogger(__name__)

#: Milliseconds of one look for records: how soon a reader notices that it shall stop, and not how late a record comes.
POLL_MS = 500
#: Seconds between two tries when the broker is away.
RETRY = 0.5


@asynccontextmanager
async def explained(cluster: Cluster) -> AsyncIterator[None]:
    """Turn what a Kafka client raises into ConnectionLostError."""
    try:
        async with kafka.explained(cluster):
            yield
    except kafka.KafkaUnavailableError as error:
        raise ConnectionLostError(str(error)) from None


@dataclass(frozen=True)
class Connection:
    """Kafka as the client uses it."""

    cluster: Cluster

    @asynccontextmanager
    async def producer(self) -> AsyncIterator[AIOKafkaProducer]:
        """A started producer; what is sent is in the topic when the block ends."""
        producer = self.cluster.producer(max_request_size=MAX_RECORD_BYTES)
        async with explained(self.cluster):
            try:
                await producer.start()
                yield producer
            finally:
                await producer.stop()

    @asynccontextmanager
    async def consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        """A started consumer without a group. A position that is not there any more becomes the oldest that is."""
        consumer = self.cluster.consumer(auto_offset_reset="earliest")
        async with explained(self.cluster):
            try:
                await consumer.start()
                yield consumer
            finally:
                await consumer.stop()

    async def partitions(self, topic: str) -> list[TopicPartition]:
        """All partitions of a topic. Raises SpillwayError if there is no such topic; never creates it."""
        async with explained(self.cluster):
            admin = self.cluster.admin()
            try:
                await admin.start()
                known = {found["topic"]: found["partitions"] for found in await admin.describe_topics()}
            finally:
                await admin.close()
        if topic not in known:
            raise SpillwayError(self.cluster.without(topic))
        return [TopicPartition(topic, found["partition"]) for found in known[topic]]


async def assign_ends(consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
    """Begin where the partitions end now: what is published from here on is not missed."""
    consumer.assign(partitions)
    for partition, end in (await consumer.end_offsets(partitions)).items():
        # A seek to a number: one "to the end" would be asked for later, and miss what came until then.
        consumer.seek(partition, end)


async def follow(consumer: AIOKafkaConsumer, hear: Callable[[ConsumerRecord], None]) -> None:
    """Hand on every record, until cancelled. The position is kept while the broker is away."""
    while True:
        try:
            batches = await consumer.getmany(timeout_ms=POLL_MS)
        except KafkaError as error:
            log.warning("replies_unread: %s", type(error).__name__)
            await asyncio.sleep(RETRY)
            continue
        for batch in batches.values():
            for record in batch:
                hear(record)
