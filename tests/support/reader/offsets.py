"""The workers' place in a topic, looked at and put back by hand."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from app.audit.topics import committed, partitions_of
from app.kafka import Cluster, admin_client
from tests.support.clock.waiting import eventually


async def rewind(servers: str, group: str, topic: str) -> None:
    """To the beginning. The broker refuses it while the group has members: those of a dead worker leave by time."""

    async def try_it() -> bool:
        async with admin_client(Cluster(servers)) as admin:
            [partitions] = (await partitions_of(admin, (topic,))).values()
        consumer = AIOKafkaConsumer(bootstrap_servers=servers, group_id=group, enable_auto_commit=False)
        await consumer.start()
        try:
            consumer.assign(partitions)
            await consumer.commit(await consumer.beginning_offsets(partitions))
        except KafkaError:
            return False
        finally:
            await consumer.stop()
        return True

    await eventually(try_it, within=60, every=0.5, what=f"{group} has no members")


async def waiting(servers: str, group: str, topic: str) -> int:
    """Records that the group has not acknowledged."""
    async with admin_client(Cluster(servers)) as admin:
        [partitions] = (await partitions_of(admin, (topic,))).values()
        places = await committed(Cluster(servers), admin, group)
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)
    await consumer.start()
    try:
        ends = await consumer.end_offsets(partitions)
    finally:
        await consumer.stop()
    return sum(end - places.get((tp.topic, tp.partition), 0) for tp, end in ends.items())
