"""A consumer group that reads topics batch by batch, for sinks that keep nothing in Faust's tables.

Faust hands over one event at a time, each with a stream, a task and an acknowledgement of its own: measured, more than
half of what a usage record cost. Here a batch is read, handled and acknowledged as a whole. Acknowledged last is then
simple: offsets are committed in order, after the handlers of everything below them have returned.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition

from streams.runtime.errors import AbandonedError, StagePausedError
from streams.runtime.faults import FaultLimits
from streams.runtime.gone import Gone
from streams.runtime.incoming import Incoming
from streams.runtime.progress import Standing
from streams.runtime.reading import positions
from streams.runtime.transport import DrainSignal, tell_membership

log = logging.getLogger(__name__)

#: Seconds before a batch that failed is read again.
RETRY = 1.0
#: Records of one look into what has been fetched.
LOOK = 2_000
#: Seconds of one look for more: a drain is noticed after it.
POLL = 0.25
#: Seconds that are longer than any look.
ANY_TIME = 3_600.0
#: Seconds that a stop waits for the batch that is being written.
STOP_TIMEOUT = 4.0
#: While there is a backlog, telling and committing may take this part of the time.
CHECKPOINT_SHARE = 0.1


class Batching(Protocol):
    """When a batch is due."""

    @property
    def seconds(self) -> float: ...

    @property
    def rows(self) -> int: ...

    @property
    def capacity(self) -> int: ...

    @property
    def size(self) -> int: ...


class BatchHandler(Protocol):
    """Handles a topic's records. Both methods raise AbandonedError when a drain has begun and they cannot go on."""

    @property
    def topic(self) -> str: ...

    @property
    def is_held_up(self) -> bool:
        """Whether it waits for something that is away."""
        ...

    async def take(self, records: Sequence[Any]) -> None:
        """Return when every record is stored, or is with the dead letters."""
        ...

    async def checkpoint(self) -> None:
        """Return when what the records caused is known to everybody: they will be acknowledged next."""
        ...


class BatchReader(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka has no types
    """Reads the handlers' topics as one member of a group.

    A batch is due when it has `rows`, or when its first record has waited `seconds`. While there is a backlog, batches
    are as large as `capacity`, and several of them share one checkpoint.
    """

    def __init__(
        self,
        make_consumer: Callable[[], AIOKafkaConsumer],
        handlers: Sequence[BatchHandler],
        policy: Batching,
        drain: DrainSignal,
        pause: float = FaultLimits.pause,
        gone: Gone | None = None,
    ) -> None:
        self._make = make_consumer
        self._pause = pause
        self._gone = gone
        #: Told the group and the member's id, each time that it has joined; None: nobody keeps them.
        self.joined: Callable[[str, str], None] | None = None
        #: Why nothing is written for now; None where that is not so.
        self.paused: str | None = None
        self._handlers: dict[str, list[BatchHandler]] = {}
        for handler in handlers:
            self._handlers.setdefault(handler.topic, []).append(handler)
        self._policy = policy
        self._drain = drain
        self._consumer: AIOKafkaConsumer | None = None
        self._reading: asyncio.Task[None] | None = None
        self._stopping = False
        #: Held from the first record of a batch until it is handled: a rebalance waits for that.
        self._turn = asyncio.Lock()
        #: Since the last commit: each partition's first offset that was read, and the one after the last handled.
        self._first: dict[TopicPartition, int] = {}
        self._next: dict[TopicPartition, int] = {}
        #: Partitions of which something was read that is not handled, and will be read again.
        self._open: set[TopicPartition] = set()
        self._checkpoint_due = 0.0
        self._rounds = 0
        self._committed: dict[TopicPartition, int | None] = {}

    async def committed(self) -> dict[TopicPartition, int | None]:
        """Its partitions, and up to where each is acknowledged; None: nothing of it yet. Raises KafkaError."""
        if self._consumer is None:
            return {}
        own = self._consumer.assignment()
        for partition in own - self._committed.keys():
            self._committed[partition] = await self._consumer.committed(partition)
        return {partition: self._committed[partition] for partition in own & self._committed.keys()}

    def reading(self, ends: Mapping[TopicPartition, int]) -> Standing:
        """How the reading stands, given where the partitions ended a while ago."""
        known = positions(self._consumer) if self._consumer is not None else {}
        behind = any(at < ends.get(place, 0) for place, at in known.items())
        held_up = any(handler.is_held_up for handlers in self._handlers.values() for handler in handlers)
        return Standing(behind and not held_up and self.paused is None, sum(known.values()) + self._rounds)

    async def start(self) -> None:
        self._consumer = self._make()
        await self._consumer.start()
        self._consumer.subscribe(list(self._handlers), listener=self)
        self._reading = asyncio.create_task(self._read(self._consumer))

    async def stop(self) -> None:
        """Finish the batch at hand, acknowledge it, and leave the group."""
        self._stopping = True
        self._drain.begin()
        if self._reading is not None:
            _, unfinished = await asyncio.wait({self._reading}, timeout=STOP_TIMEOUT)
            self._reading.cancel()
            if not unfinished:
                await self._acknowledge_what_is_done()
        if self._consumer is not None:
            await self._consumer.stop()

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        """Bring the batch at hand to its end, so that the next owner need not repeat it."""
        if not revoked:
            return
        self._drain.begin()
        async with self._turn:
            await self._acknowledge_what_is_done()
        # Somebody else may go on with them before they are ours again.
        self._committed = {}
        self._open.clear()
        if not self._stopping:
            self._drain.end()

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        tell_membership(self._consumer, self.joined)
        log.info("sink_assigned: %s partitions", len(assigned))

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        while not self._stopping:
            try:
                async with self._turn:
                    await self._round(consumer)
            except AbandonedError:
                await asyncio.sleep(0)
            except StagePausedError as error:
                if self.paused is None:
                    log.error("stage_paused: the sinks: %s; they try again every %g s", error, self._pause)  # noqa: TRY400
                self.paused = str(error)
                await self._again(consumer, self._pause)
            except Exception as error:  # noqa: BLE001 - the sink goes on whatever happens; its records are still in Kafka
                log.warning("sink_interrupted: its batch is read again: %s", type(error).__name__)
                await self._again(consumer, RETRY)

    async def _round(self, consumer: AIOKafkaConsumer) -> None:
        self._rounds += 1
        batch, read, backlog = await self._collect(consumer)
        # What is given up below has moved the positions, and must not be acknowledged by later rounds.
        self._open |= read.keys()
        if self._gone is not None:
            # Nothing has waited since the places were taken: none of them lies beyond a gap that is not told.
            await self._gone.tell_all(consumer)
        for topic, records in batch.items():
            for handler in self._handlers[topic]:
                await handler.take(records)
        self._open -= read.keys()
        if batch:
            self.paused = None
        # Only now: a batch that was given up must not be committed by the rebalance that made it so.
        self._next |= read
        if self._next and not (backlog and asyncio.get_running_loop().time() < self._checkpoint_due):
            await self._acknowledge()

    async def _collect(
        self, consumer: AIOKafkaConsumer
    ) -> tuple[Mapping[str, list[Any]], dict[TopicPartition, int], bool]:
        """The next batch by topic, each partition's next offset after it, and whether there is a backlog."""
        clock = asyncio.get_running_loop().time
        batch: dict[str, list[Any]] = {}
        deadline = clock() + self._policy.seconds
        count = size = 0
        while count < self._policy.capacity and size < self._policy.size:
            # Beyond a full batch only what is there already.
            left = 0.0 if count >= self._policy.rows else max(0.0, deadline - clock())
            room = min(LOOK, self._policy.capacity - count)
            found = await self._look(consumer, min(left, POLL), room)
            for partition, records in found.items():
                batch.setdefault(partition.topic, []).extend(records)
                self._first.setdefault(partition, records[0].offset)
                count += len(records)
                size += sum(len(record.value or b"") for record in records)
            if (not found and (left <= 0 or not count)) or self._drain.draining:
                break
            await asyncio.sleep(0)
        return batch, self._read_up_to(consumer), count >= self._policy.rows

    def _read_up_to(self, consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
        """Where each partition is that has been read further than it is acknowledged.

        Also over what nobody is given: aborted transactions, and the markers of transactions.
        """
        known = positions(consumer).items()
        return {place: at for place, at in known if self._is_news(place, at) and place not in self._open}

    def _is_news(self, place: TopicPartition, at: int) -> bool:
        """Also the place where a new group begins (gone.py)."""
        committed = self._committed.get(place)
        return committed is None or at > committed

    async def _look(self, consumer: AIOKafkaConsumer, seconds: float, room: int) -> dict[TopicPartition, list[Any]]:
        """What has been fetched, at the latest after so many seconds, or when a drain begins.

        From the moment at which partitions are to be given up aiokafka's `getmany` waits until they have been, whatever
        its timeout; and giving them up waits for the batch at hand. Nothing is lost by cancelling it: what it returns
        it takes in one step, without waiting.
        """
        looking = asyncio.ensure_future(consumer.getmany(timeout_ms=round(seconds * 1000), max_records=room))
        leaving = asyncio.ensure_future(self._drain.wait(ANY_TIME))
        try:
            await asyncio.wait({looking, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not looking.done():
                looking.cancel()
                await asyncio.wait({looking})
        finally:
            looking.cancel()
            leaving.cancel()
        return {} if looking.cancelled() else looking.result()

    async def _acknowledge(self) -> None:
        """Tell what was done, then commit."""
        if self._consumer is None or not self._next:
            return
        clock = asyncio.get_running_loop().time
        begun = clock()
        for handlers in self._handlers.values():
            for handler in handlers:
                await handler.checkpoint()
        await self._consumer.commit(self._next)
        self._committed |= self._next
        self._first, self._next = {}, {}
        self._checkpoint_due = clock() + (clock() - begun) / CHECKPOINT_SHARE

    async def _acknowledge_what_is_done(self) -> None:
        """The last word on these partitions: what cannot be acknowledged now is read again by their next owner."""
        try:
            await self._acknowledge()
        except Exception as error:  # noqa: BLE001 - whatever it is, the partitions go
            log.warning("sink_gave_up: a batch is read again by its next owner: %s", type(error).__name__)
        self._first, self._next = {}, {}

    async def _again(self, consumer: AIOKafkaConsumer, wait: float) -> None:
        """Go back to what is not acknowledged: writing a row again changes nothing."""
        await self._drain.wait(wait)
        assigned = consumer.assignment()
        for partition, offset in self._first.items():
            if partition in assigned:
                consumer.seek(partition, offset)
        self._first, self._next = {}, {}
        self._open.clear()


def incoming_of(record: Any) -> Incoming:
    """aiokafka's record as the pure code may see it."""
    return Incoming(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp or 0,
        key=record.key,
        value=record.value,
        headers=tuple(record.headers or ()),
    )
