"""The workers' consumer groups from outside: whether somebody is at work, and where a group goes on reading.

A broker takes an offset from somebody outside only while the group has no members. That is also how their presence is
found out: aiokafka's description of a group cannot read one that has members.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import CommitFailedError

from app.audit.topics import committed
from app.kafka import Cluster, explained
from streams.topology import REQUESTS


class GroupAtWorkError(Exception):
    """The group has members. The message says so in a sentence."""


async def go_on_at(cluster: Cluster, group: str, offsets: Mapping[TopicPartition, int]) -> None:
    """Have the group read these partitions from here on. Raises GroupAtWorkError, KafkaUnavailableError."""
    async with explained(cluster):
        consumer = cluster.consumer(group_id=group)
        try:
            await consumer.start()
            consumer.assign(list(offsets))
            await consumer.commit(dict(offsets))
        except CommitFailedError:
            raise GroupAtWorkError(
                f"Members of the group {group} are at work; stop all workers first. One that was killed leaves after "
                "ten seconds."
            ) from None
        finally:
            await consumer.stop()


async def refuse_at_work(cluster: Cluster, admin: AIOKafkaAdminClient, group: str) -> None:
    """Raises GroupAtWorkError. What is committed is committed once more, which changes nothing."""
    places = await committed(cluster, admin, group)
    # A group that has never committed begins at the beginning anyway.
    (topic, partition), offset = next(iter(places.items()), ((REQUESTS, 0), 0))
    await go_on_at(cluster, group, {TopicPartition(topic, partition): offset})
