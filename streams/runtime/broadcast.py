"""A compacted topic of which every worker knows all: a table without an owner.

Faust's global tables would take part in rebalances and recovery; all that is needed here is a reader without a group.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams.runtime.errors import MissingTopicError

log = logging.getLogger(__name__)

#: Milliseconds of one look for news.
POLL_MS = 500
#: Seconds between tries when the broker is away.
RETRY = 1.0

Listener = Callable[[bytes | None, bytes | None], None]


class Broadcast:
    """Hands every record of a topic's only partition to a listener: first all there are, then each new one."""

    def __init__(self, make_consumer: Callable[[], AIOKafkaConsumer], topic: str, listener: Listener) -> None:
        self._make = make_consumer
        self._partition = TopicPartition(topic, 0)
        self._listener = listener
        self._consumer: AIOKafkaConsumer | None = None
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when everything that is there now has been heard. Raises MissingTopicError."""
        self._consumer = self._make()
        await self._consumer.start()
        if self._partition.topic not in await self._consumer.topics():
            raise MissingTopicError(self._partition.topic)
        self._consumer.assign([self._partition])
        begin = (await self._consumer.beginning_offsets([self._partition]))[self._partition]
        end = (await self._consumer.end_offsets([self._partition]))[self._partition]
        # A seek to a number: one "to the beginning" is lost while the consumer still looks for its first position.
        self._consumer.seek(self._partition, begin)
        while await self._consumer.position(self._partition) < end:
            await self._hear(self._consumer)
        self._following = asyncio.create_task(self._follow(self._consumer))

    async def stop(self) -> None:
        if self._following is not None:
            self._following.cancel()
        if self._consumer is not None:
            await self._consumer.stop()

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            try:
                await self._hear(consumer)
            except KafkaError as error:
                log.warning("broadcast_unread: %s: %s", self._partition.topic, type(error).__name__)
                await asyncio.sleep(RETRY)

    async def _hear(self, consumer: AIOKafkaConsumer) -> None:
        batches = await consumer.getmany(self._partition, timeout_ms=POLL_MS)
        for record in batches.get(self._partition, ()):
            try:
                self._listener(record.key, record.value)
            except Exception:
                # One record that its listener cannot bear must not keep all later ones from it, such as a key's end.
                log.exception("broadcast_fault: %s@%s", self._partition.topic, record.offset)
