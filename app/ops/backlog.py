"""How far the worker's readers are behind their topics: one request to each broker, when somebody asks.

aiokafka learns a partition's end only while it fetches it, and a lane that has enough in memory does not: its backlog
is just what an operator wants to see. So the ends are asked for, over a connection of their own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition

from app.kafka import Cluster, KafkaUnavailableError, explained
from streams.topology import REQUESTS

#: The partitions that a reader owns, and up to where it has committed each; None: nothing yet.
Committed = Mapping[TopicPartition, int | None]
#: What reads in this worker: its stages and its sinks are members of two groups.
Reader = Callable[[], Awaitable[Committed]]

#: Asked for by a worker without partitions: whether Kafka answers is worth knowing all the same.
_ANY = TopicPartition(REQUESTS, 0)


class Backlog:
    """Records that are not acknowledged yet, by reader and topic, in its partitions, as of the last look."""

    def __init__(
        self, cluster: Cluster, consumer: Callable[[], AIOKafkaConsumer], readers: Mapping[str, Reader]
    ) -> None:
        self._cluster = cluster
        self._make = consumer
        self._readers = readers
        self._consumer: AIOKafkaConsumer | None = None
        self.records: Mapping[tuple[str, str], int] = {}
        #: Where the partitions of all readers ended at the last look, and up to where each reader had read them.
        self.ends: Mapping[TopicPartition, int] = {}
        self.committed: Mapping[str, Committed] = {}

    async def look(self) -> str | None:
        """Ask Kafka. What is returned is what is wrong with it."""
        try:
            async with explained(self._cluster):
                self.records = await self._ask()
        except KafkaUnavailableError as error:
            await self.close()
            return str(error)
        except BaseException:
            # The connection may know brokers that are gone: the next look starts afresh.
            await self.close()
            raise
        return None

    async def _ask(self) -> Mapping[tuple[str, str], int]:
        consumer = await self._connected()
        committed = {name: dict(await reader()) for name, reader in self._readers.items()}
        places = {place for own in committed.values() for place in own}
        unread = {place for own in committed.values() for place, offset in own.items() if offset is None}
        ends = await consumer.end_offsets(list(places) or [_ANY])
        starts = await consumer.beginning_offsets(list(unread)) if unread else {}
        self.ends, self.committed = ends, committed
        return {
            (name, topic): count
            for name, own in committed.items()
            for topic, count in behind(own, starts, ends).items()
        }

    async def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            self._consumer = self._make()
            await self._consumer.start()
        return self._consumer

    async def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()


def behind(
    committed: Committed, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> dict[str, int]:
    """Records between what was committed, or the start, and the end, by topic. Pure."""
    found: defaultdict[str, int] = defaultdict(int)
    for place, offset in committed.items():
        begun = starts.get(place, 0) if offset is None else offset
        found[place.topic] += max(ends.get(place, 0) - begun, 0)
    return dict(found)
