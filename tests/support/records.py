"""Reading and writing topics in tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.support.waiting import eventually


@asynccontextmanager
async def reading(servers: str, *topics: str, from_start: bool = False) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of all partitions, at their ends (or starts) when the block begins; it belongs to no group."""
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = []
        for topic in topics:
            await _until_known(consumer, topic)
            partitions += [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
        consumer.assign(partitions)
        await (consumer.seek_to_beginning() if from_start else consumer.seek_to_end())
        yield consumer
    finally:
        await consumer.stop()


async def _until_known(consumer: AIOKafkaConsumer, topic: str) -> None:
    async def known() -> bool:
        return topic in await consumer.topics()

    await eventually(known, within=10, what=f"the topic {topic} exists")


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
