"""Reading and writing topics in tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import RecordMetadata
from confluent_kafka import admin

from app.kafka import Cluster, admin_client
from tests.support.clock.waiting import eventually


@asynccontextmanager
async def reading(servers: str, *topics: str, from_start: bool = False) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of all partitions, at their ends (or starts) when the block begins; it belongs to no group."""
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = await eventually(lambda: _partitions(servers, topics), what=f"{topics} exist")
        consumer.assign(partitions)
        if from_start:
            # Not seek_to_beginning: aiokafka lets the answer of its own first reset, to the end, override that.
            for place, start in (await consumer.beginning_offsets(partitions)).items():
                consumer.seek(place, start)
        else:
            await consumer.seek_to_end()
        yield consumer
    finally:
        await consumer.stop()


async def _partitions(servers: str, topics: Sequence[str]) -> list[TopicPartition] | None:
    async with admin_client(Cluster(servers)) as admin:
        known = {found["topic"]: found["partitions"] for found in await admin.describe_topics()}
    if not known.keys() >= set(topics):
        return None
    return [TopicPartition(topic, found["partition"]) for topic in topics for found in known[topic]]


async def consume_until(
    consumer: AIOKafkaConsumer,
    enough: Callable[[list[Any]], bool],
    *,
    only: Callable[[Any], bool] = lambda _: True,
    within: float = 30.0,
) -> list[Any]:
    """Records, in order of arrival, until they are enough. Fails after `within` seconds."""
    found: list[Any] = []
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not enough(found):
        if loop.time() > deadline:
            raise AssertionError(f"not enough records within {within:g} s; there were {len(found)}")
        for batch in (await consumer.getmany(timeout_ms=200)).values():
            found += [record for record in batch if only(record)]
    return found


async def publish(servers: str, topic: str, records: Iterable[tuple[bytes | None, bytes | None]]) -> None:
    """Write keys and values; all of them are in the topic when this returns."""
    producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all")
    await producer.start()
    try:
        await asyncio.gather(*[await producer.send(topic, key=key, value=value) for key, value in records])
    finally:
        await producer.stop()


async def put(
    servers: str,
    topic: str,
    value: bytes,
    *,
    key: bytes | None = None,
    headers: Iterable[tuple[str, bytes | None]] = (),
    partition: int | None = None,
) -> RecordMetadata:
    """Write one record with all that it may have, larger than a topic takes if need be; returns its place."""
    async with AIOKafkaProducer(bootstrap_servers=servers, acks="all", max_request_size=2_000_000) as producer:
        return await producer.send_and_wait(topic, value, key=key, headers=list(headers), partition=partition)


def configure(servers: str, setting: str, values: Mapping[str, str]) -> None:
    """Set one of Kafka's own settings of topics, by topic; returns when the broker has it."""
    kinds: Any = admin
    change = kinds.AlterConfigOpType.SET
    resources = [
        kinds.ConfigResource(
            kinds.ResourceType.TOPIC,
            topic,
            incremental_configs=[kinds.ConfigEntry(setting, value, incremental_operation=change)],
        )
        for topic, value in values.items()
    ]
    # Held in a variable: a client that is let go of takes its questions with it.
    client = kinds.AdminClient({"bootstrap.servers": servers})
    for done in client.incremental_alter_configs(resources).values():
        done.result(30)
