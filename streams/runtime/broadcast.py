"""A compacted topic of which every worker knows all: a table without an owner.

Faust's global tables would take part in rebalances and recovery; all that is needed here is a reader without a group.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from streams.runtime.errors import MissingTopicError
from streams.runtime.reading import check_alive

log = logging.getLogger(__name__)

#: What aiokafka calls a timestamp that the broker gave (LogAppendTime).
APPEND_TIME = 1
#: Milliseconds of one look for news.
POLL_MS = 500
#: Seconds between tries when it cannot be read, at first and at most.
RETRY, LONGEST_RETRY = 1.0, 15.0

Listener = Callable[[bytes | None, bytes | None], None]
#: The third one is the broker's timestamp in seconds since 1970; None where it gives none.
StampedListener = Callable[[bytes | None, bytes | None, float | None], None]


class Broadcast:
    """Hands every record of a topic's only partition to a listener: first all there are, then each new one.

    Whatever its reader dies of, it is read on from where it was: what it tells (budgets, limits, cancellations) must
    not stand still in silence.
    """

    def __init__(self, make_consumer: Callable[[], AIOKafkaConsumer], topic: str, listener: Listener) -> None:
        self._make = make_consumer
        self._partition = TopicPartition(topic, 0)
        self._listener = listener
        self._consumer: AIOKafkaConsumer | None = None
        self._following: asyncio.Task[None] | None = None
        self._next = 0

    async def start(self) -> None:
        """Return when everything that is there now has been heard. Raises MissingTopicError."""
        consumer = await self._open()
        end = (await consumer.end_offsets([self._partition]))[self._partition]
        while await consumer.position(self._partition) < end:
            await self._hear(consumer)
        self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait({self._following})
        await self._close()

    async def _open(self) -> AIOKafkaConsumer:
        """A reader that goes on where the one before it stopped."""
        consumer = self._consumer = self._make()
        await consumer.start()
        if self._partition.topic not in await consumer.topics():
            raise MissingTopicError(self._partition.topic)
        consumer.assign([self._partition])
        begin = (await consumer.beginning_offsets([self._partition]))[self._partition]
        # A seek to a number: one "to the beginning" is lost while the consumer still looks for its first position.
        consumer.seek(self._partition, max(begin, self._next))
        return consumer

    async def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with contextlib.suppress(Exception):
                await consumer.stop()

    async def _follow(self) -> None:
        wait = RETRY
        while True:
            try:
                consumer = self._consumer or await self._open()
                await self._hear(consumer)
                check_alive(consumer)
                wait = RETRY
            except Exception as error:  # noqa: BLE001 - see the class
                log.warning("broadcast_unread: %s: %s: it is opened anew", self._partition.topic, type(error).__name__)
                await self._close()
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_RETRY)

    async def _hear(self, consumer: AIOKafkaConsumer) -> None:
        batches = await consumer.getmany(self._partition, timeout_ms=POLL_MS)
        for record in batches.get(self._partition, ()):
            self._next = record.offset + 1
            try:
                self._tell(record)
            except Exception:
                # One record that its listener cannot bear must not keep all later ones from it, such as a key's end.
                log.exception("broadcast_fault: %s@%s", self._partition.topic, record.offset)

    def _tell(self, record: ConsumerRecord) -> None:
        self._listener(record.key, record.value)


class StampedBroadcast(Broadcast):
    """The same for a listener that also wants to know when the broker has taken a record."""

    def __init__(self, make_consumer: Callable[[], AIOKafkaConsumer], topic: str, listener: StampedListener) -> None:
        super().__init__(make_consumer, topic, lambda key, value: listener(key, value, None))
        self._stamped = listener

    def _tell(self, record: ConsumerRecord) -> None:
        is_append_time = record.timestamp_type == APPEND_TIME
        self._stamped(record.key, record.value, record.timestamp / 1000 if is_append_time else None)
