"""The workers' place in a topic, looked at and put back by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from app.audit.topics import committed, partitions_of
from app.kafka import Cluster, admin_client
from tests.support.clock.waiting import eventually


@asynccontextmanager
async def of_group(servers: str, group: str | None) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer that reads and sets the offsets of a group, and takes no partition from its members."""
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def rewind(servers: str, group: str, topic: str) -> None:
    """To the beginning. The broker refuses it while the group has members: those of a dead worker leave by time."""

    async def try_it() -> bool:
        async with admin_client(Cluster(servers)) as admin:
            [partitions] = (await partitions_of(admin, (topic,))).values()
        async with of_group(servers, group) as consumer:
            consumer.assign(partitions)
            try:
                await consumer.commit(await consumer.beginning_offsets(partitions))
            except KafkaError:
                return False
        return True

    await eventually(try_it, within=60, every=0.5, what=f"{group} has no members")


async def waiting(servers: str, group: str, *topics: str) -> int:
    """Records of these topics that the group has not acknowledged."""
    async with admin_client(Cluster(servers)) as admin:
        found = await partitions_of(admin, topics)
        places = await committed(Cluster(servers), admin, group)
    assert found.keys() == set(topics), "a topic is not there"
    partitions = [partition for each in found.values() for partition in each]
    async with of_group(servers, None) as consumer:
        ends = await consumer.end_offsets(partitions)
    return sum(end - places.get((tp.topic, tp.partition), 0) for tp, end in ends.items())
