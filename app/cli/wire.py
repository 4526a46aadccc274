"""Kafka for the commands: a producer, and consumers that belong to no group and leave no trace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from app.cli.errors import CommandError
from app.kafka import Cluster, admin_client, explained
from streams.topology import MAX_RECORD_BYTES

#: Milliseconds that one look for records may take.
POLL_MS = 200


@asynccontextmanager
async def producing(cluster: Cluster) -> AsyncIterator[AIOKafkaProducer]:
    """A started producer with aiokafka's own partitioner; what is sent is in the topic when the block ends."""
    async with explained(cluster):
        producer = cluster.producer(linger_ms=5, max_request_size=MAX_RECORD_BYTES)
        try:
            await producer.start()
            yield producer
        finally:
            await producer.stop()


@asynccontextmanager
async def consuming(cluster: Cluster, *topics: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A started consumer that has all partitions of the topics, its positions still open.

    Raises CommandError for a topic that does not exist: a consumer would wait for it.
    """
    partitions = await _partitions(cluster, topics)
    async with explained(cluster):
        consumer = cluster.consumer(fetch_max_wait_ms=POLL_MS)
        try:
            await consumer.start()
            consumer.assign(partitions)
            yield consumer
        finally:
            await consumer.stop()


async def _partitions(cluster: Cluster, topics: Sequence[str]) -> list[TopicPartition]:
    async with admin_client(cluster) as admin:
        known = {found["topic"]: found["partitions"] for found in await admin.describe_topics()}
    for topic in topics:
        if topic not in known:
            raise CommandError(cluster.without(topic))
    return [TopicPartition(topic, found["partition"]) for topic in topics for found in known[topic]]


async def poll(consumer: AIOKafkaConsumer) -> list[ConsumerRecord]:
    """What has arrived, oldest first within a partition; empty after a short while without any."""
    batches = await consumer.getmany(timeout_ms=POLL_MS)
    return [record for batch in batches.values() for record in batch]
