"""How far the worker's partitions are behind their topics: one request to each broker, when somebody asks.

aiokafka learns a partition's end only while it fetches it, and a lane that has enough in memory does not: its backlog
is just what an operator wants to see. So the ends are asked for, over a connection of their own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition

from app.kafka import Cluster, KafkaUnavailableError, explained
from streams.topology import REQUESTS

#: The partitions that a worker owns, and up to where it has committed each; None: nothing yet.
Committed = Mapping[TopicPartition, int | None]

#: Asked for by a worker without partitions: whether Kafka answers is worth knowing all the same.
_ANY = TopicPartition(REQUESTS, 0)


class Backlog:
    """Records that are not acknowledged yet, by topic, in the partitions of this worker, as of the last look."""

    def __init__(
        self, cluster: Cluster, consumer: Callable[[], AIOKafkaConsumer], committed: Callable[[], Committed]
    ) -> None:
        self._cluster = cluster
        self._make = consumer
        self._committed = committed
        self._consumer: AIOKafkaConsumer | None = None
        self.by_topic: Mapping[str, int] = {}

    async def look(self) -> str | None:
        """Ask Kafka. What is returned is what is wrong with it."""
        try:
            async with explained(self._cluster):
                self.by_topic = await self._ask()
        except KafkaUnavailableError as error:
            await self.close()
            return str(error)
        except BaseException:
            # The connection may know brokers that are gone: the next look starts afresh.
            await self.close()
            raise
        return None

    async def _ask(self) -> Mapping[str, int]:
        consumer = await self._connected()
        committed = dict(self._committed())
        ends = await consumer.end_offsets(list(committed) or [_ANY])
        unread = [place for place, offset in committed.items() if offset is None]
        committed |= await consumer.beginning_offsets(unread) if unread else {}
        return behind(committed, ends)

    async def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            self._consumer = self._make()
            await self._consumer.start()
        return self._consumer

    async def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()


def behind(committed: Committed, ends: Mapping[TopicPartition, int]) -> dict[str, int]:
    """Records between what was committed and the end, by topic. Pure."""
    found: defaultdict[str, int] = defaultdict(int)
    for place, offset in committed.items():
        found[place.topic] += max(ends.get(place, 0) - (offset or 0), 0)
    return dict(found)
