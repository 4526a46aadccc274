"""Faust's Kafka transport with Spillway's acknowledgement discipline: commit what is safe, drain before giving up a
partition, and never wait for ever.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Protocol, cast

from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError
from faust.transport.consumer import Fetcher
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import Service
from mode.utils.futures import maybe_async, notify

from streams.runtime.deliveries import Deliveries
from streams.runtime.errors import LostError
from streams.runtime.progress import Standing
from streams.runtime.reading import Unreadable, positions
from streams.topology import DISPATCH_PREFIX

log = logging.getLogger(__name__)

#: Seconds before the group is joined again by a worker that could not become the owner of its partitions.
REJOIN_WAIT = 0.5
#: Seconds between two looks at what is still open while a drain waits.
DRAIN_POLL = 0.25
#: Seconds for which a drain waits for events that need nothing but the broker. One that is given up in its midst is
#: said twice: it has answered perhaps, and is delivered again.
SHORT_WORK = 5.0
#: What may wait in an agent's channel, and the seconds between two looks whether there is room again: Faust's queues
#: tell nobody that something was taken out of them.
BUFFERED_BYTES = 16 * 1024 * 1024
ROOM_POLL = 0.01
#: Seconds of one look for more.
IDLE_POLL = 1.0
#: Seconds between two looks how far partitions are read.
NOTE_INTERVAL = 1.0
#: Stands for rows that a changelog no longer tells.
UNREADABLE_KEY = b"__unreadable"
#: Milliseconds for which the broker may hold a fetch that finds nothing. A change of the group waits for it.
FETCH_WAIT_MS = 200
#: Seconds for what is still to be said when everything in flight has ended.
LAST_WORDS = 2.0


class DrainSignal:
    """Tells agents that the worker is giving up its partitions, so that they stop waiting for anything optional."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._draining = asyncio.Event()
        self._on_drain: list[Callable[[], None]] = []
        self._on_drained: list[Callable[[], Awaitable[None]]] = []
        #: How many drains have begun: work that began before the latest one may have lost its partition.
        self.count = 0
        #: How many have ended.
        self.ended = 0
        #: When partitions have changed hands last, in seconds since 1970.
        self.changed_at = clock()

    @property
    def draining(self) -> bool:
        return self._draining.is_set()

    def on_drain(self, callback: Callable[[], None]) -> None:
        self._on_drain.append(callback)

    def on_drained(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Call when what was in flight has ended, and the partitions are still this worker's."""
        self._on_drained.append(callback)

    async def drained(self) -> None:
        """Tell so; nobody is waited for longer than a moment."""
        try:
            async with asyncio.timeout(LAST_WORDS):
                for callback in self._on_drained:
                    await callback()
        except TimeoutError:
            log.warning("drained: the last words were cut short")

    def begin(self) -> None:
        self.count += 1
        self._draining.set()
        for callback in self._on_drain:
            callback()

    def end(self) -> None:
        self.changed_at = self._clock()
        self.ended += 1
        # Another one: who waits for this drain hears of it also when it is over at once.
        self._draining = asyncio.Event()

    async def wait(self, seconds: float) -> bool:
        """Sleep for so many seconds; True at once when a drain begins."""
        draining = self._draining
        try:
            await asyncio.wait_for(draining.wait(), seconds)
        except TimeoutError:
            return False
        return True


class InLoopConsumer(driver.AIOKafkaConsumerThread):
    """Runs aiokafka's consumer in the worker's own event loop.

    Faust gives it a thread with a loop of its own. Each fetch then crosses threads twice, and each crossing waits for
    the interpreter's lock: measured with one worker at 100 events/s, three hops took 47 ms at p50 that way (see
    docs/benchmarks.md for what is left). Nothing here blocks the loop for long, so heartbeats need no thread.
    """

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, thread_loop=asyncio.get_running_loop(), **kwargs)

    async def start(self) -> None:
        self._thread_started.set()
        await self._default_start()

    async def stop(self) -> None:
        if self._stopped.is_set():
            return
        self._stopped.set()
        await self.on_thread_stop()
        await self._default_stop_children()
        self._shutdown.set()
        await self._default_stop_futures()
        await self._default_stop_exit_stacks()

    async def call_thread(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await maybe_async(fun(*args, **kwargs))

    def _create_worker_consumer(self, transport: Any) -> Any:
        """Faust reads what is not committed, unless it writes in transactions itself, and knows no shorter wait for a
        fetch: there is no setting for either.
        """
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        # What the coordinator answers is heard here: for how long the partitions are ours.
        client = consumer._client
        client.send = cast(Any, self.app).lease.watch(client.send)
        return consumer


class Ownership(Protocol):
    """What the consumer tells of its partitions, see `owners.py`."""

    rejoin: Callable[[], None]

    @property
    def has_lost(self) -> bool: ...

    async def take(self, partitions: Iterable[int], generation: int) -> None: ...

    def give_up(self) -> None: ...


def tell_membership(client: Any, joined: Callable[[str, str], None] | None) -> None:
    """Tell which member of its group a consumer of aiokafka has become."""
    if joined is not None:
        joined(client._coordinator.group_id, client._coordinator.member_id)


class AckLastConsumer(driver.Consumer):
    """Faust's consumer, committing only what `Deliveries` calls safe."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prepare()
        app = cast(Any, self.app)
        self.drain: DrainSignal = app.drain
        self.drain_timeout: float = app.drain_timeout
        self.owners: Ownership = app.owners
        self.owners.rejoin = self._rejoin

    def prepare(self) -> None:
        """What is kept beside Faust's own."""
        self.deliveries = Deliveries()
        # The stream iterator adds to this attribute, the drain asks it whether it is empty.
        self._unacked_messages = cast(Any, self.deliveries)
        #: The offset after the last message of each partition that was handed to an agent, since the last seek.
        self._handed: dict[TP, int] = {}
        #: How many messages of each topic went to agents.
        self._handed_over: Counter[str] = Counter()
        #: What channels were too full for, by partition; none of these is fetched meanwhile.
        self._aside: dict[TP, deque[Any]] = {}
        #: Partitions that whoever works on them has paused.
        self._paused: set[TP] = set()
        self._seeks = 0
        #: The number of the fetch that is handed over, and of the one in which a single partition was sought.
        self._round = 0
        self._sought_in: dict[TP, int] = {}
        self._noted_at = 0.0

    def _new_consumer_thread(self) -> InLoopConsumer:
        return InLoopConsumer(self, loop=self.loop, beacon=self.beacon)

    def pause_partitions(self, tps: Iterable[TP]) -> None:
        """Faust pauses partitions in its own books only, and aiokafka goes on fetching them.

        What is fetched and never read (a changelog after recovery) then blocks the next fetch from that broker.
        """
        paused = set(tps)
        super().pause_partitions(paused)
        self._paused |= paused
        self._fetch_or_not(paused)

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        resumed = set(tps)
        super().resume_partitions(resumed)
        self._paused -= resumed
        self._fetch_or_not(resumed)

    async def perform_seek(self) -> None:
        """Go back to the committed offsets, with the flow stopped.

        Faust lets the flow run while it restores tables, and at the end seeks one partition after another. What was
        fetched of the first ones before the last one was sought went into the agents' queues, and resuming the flow,
        which comes next, empties these: their agents got the head of such a partition and never the rest. Faust
        resumes the flow after each call of this (or had stopped it before).
        """
        cast(Any, self.app).flow_control.suspend()
        self.stop_flow()
        self._forget_how_far_it_is_read()
        generation = self.app.consumer_generation_id
        try:
            await super().perform_seek()
            await self._seek_the_rest()
        except IllegalStateError:
            # The partitions are being assigned anew; with the next assignment this is done again.
            while generation == self.app.consumer_generation_id and not self.app.should_stop:  # noqa: ASYNC110
                await asyncio.sleep(ROOM_POLL)
        self._forget_how_far_it_is_read()

    async def seek_wait(self, partitions: Mapping[TP, int | None]) -> Any:
        """Seek those that are this worker's and of which an offset is known.

        Where partitions are assigned anew while Faust restores tables, it goes on for a moment with the new ones, of
        which it knows no offsets yet: that ended the worker. The restore that follows seeks them.
        """
        _, assigned = self._client()
        return await super().seek_wait(
            {tp: offset for tp, offset in partitions.items() if offset is not None and tp in assigned}
        )

    async def _seek_the_rest(self) -> None:
        """aiokafka leaves a partition where it is whose committed offset is 0 or missing, and what was fetched of it
        has just been thrown away. Of the changelogs that is what this worker keeps a second copy of: each goes on
        behind the last row that the copy has.
        """
        copies = cast(Any, self.app).tables.recovery
        read = {tp: copies.standby_offsets.get(tp) for tp in copies.standby_tps}
        places = {tp: 0 if offset is None else offset + 1 for tp, offset in read.items()}
        places |= {tp: 0 for tp, offset in self._read_offset.items() if offset == 0}
        client, assigned = self._client()
        for tp, offset in places.items():
            if tp in assigned:
                client.seek(TopicPartition(tp.topic, tp.partition), offset)
        unread = [tp for tp in assigned if self._is_input(tp.topic) and self._read_offset[TP(*tp)] is None]
        if unread:
            await client.seek_to_beginning(*unread)

    def stop_flow(self) -> None:
        """Whatever was fetched is read again, after a seek."""
        super().stop_flow()
        aside, self._aside = self._aside, {}
        self._fetch_or_not(aside)

    def _forget_how_far_it_is_read(self) -> None:
        self._seeks += 1
        self._handed.clear()
        self.deliveries.sought()

    def _client(self) -> tuple[Any, set[Any]]:
        """aiokafka's consumer and its assignment, as its own kind of tuples (equal to Faust's)."""
        client = self._thread._ensure_consumer()
        return client, set(client.assignment())

    async def _drain_messages(self, fetcher: Any) -> None:
        """Hand each fetched message to its channels.

        Faust's own loop waits where a channel is full, and with it all agents whose channels are not; and it forgets
        what was fetched of a partition that is paused while it hands over. Here what a full channel cannot take, or was
        fetched before its partition was paused, is put aside, and nothing more of its partition is fetched until that
        has been taken. Nor are two tasks made for every message, to be able to give up on one when a rebalance begins:
        handing over never waits.
        """
        while not (self.should_stop or fetcher.should_stop):
            await asyncio.sleep(0)
            soon = any(tp not in self._paused for tp in self._aside)
            records, _ = await self._wait_next_records(ROOM_POLL if soon else IDLE_POLL)
            self._round += 1
            self._look_for_gaps()
            # Not before: the look may have begun before a rebalance, and brings what was fetched after it.
            seeks, generation = self._seeks, self.app.consumer_generation_id
            fetched = records or {}
            for tp, record in self.scheduler.iterate(fetched):
                if self._is_outdated(seeks, generation):
                    self._give_back(fetched, seeks)
                    break
                # What was fetched before its partition was sought is read once more.
                if self._sought_in.get(tp) != self._round:
                    await self._take(tp, self._to_message(tp, record))
            if not self._is_outdated(seeks, generation):
                await self._hand_over_what_was_put_aside()
                self._note_how_far_it_is_read()

    def _give_back(self, records: Mapping[Any, list[Any]], seeks: int) -> None:
        """Fetch again what was fetched and not handed over, because the flow was stopped meanwhile.

        The seek for which it was stopped may have sought some of these partitions already, before this was fetched: it
        goes from one to the next. Partitions that are sought after this are read from there.
        """
        if seeks != self._seeks:
            return  # All have been sought, or will be, since this was fetched.
        client, assigned = self._client()
        for tp, part in records.items():
            first = max(part[0].offset, self._handed.get(tp, 0))
            if tp in assigned and first <= part[-1].offset:
                client.seek(TopicPartition(tp.topic, tp.partition), first)

    def _is_outdated(self, seeks: int, generation: int) -> bool:
        """Whether the partitions, or the places from which they are read, may be others since."""
        return not self.flow_active or seeks != self._seeks or generation != self.app.consumer_generation_id

    async def _take(self, tp: TP, message: Any) -> None:
        read = self._read_offset[tp]
        if read is not None and message.offset < read:
            return
        self._handed[tp] = message.offset + 1
        if tp in self._aside or tp in self._paused or not self._has_room(tp, message):
            self._put_aside(tp, message)
        else:
            await self._hand_over(tp, message)

    async def _hand_over(self, tp: TP, message: Any) -> None:
        await self.callback(message)
        self._read_offset[tp] = message.offset
        self._handed_over[tp.topic] += 1

    def _put_aside(self, tp: TP, message: Any) -> None:
        if tp not in self._aside:
            self._aside[tp] = deque()
            self._fetch_or_not({tp})
        self._aside[tp].append(message)

    async def _hand_over_what_was_put_aside(self) -> None:
        for tp, waiting in list(self._aside.items()):
            while waiting and tp not in self._paused and self._has_room(tp, waiting[0]):
                await self._hand_over(tp, waiting.popleft())
            if not waiting and self._aside.pop(tp, None) is not None:
                self._fetch_or_not({tp})

    def _fetch_or_not(self, tps: Iterable[TP]) -> None:
        """aiokafka fetches a partition that is neither paused by whoever works on it, nor has anything put aside."""
        client, assigned = self._client()
        for tp in tps:
            if tp in assigned:
                # Its own kind of tuples: it takes no others, equal as they are.
                place = TopicPartition(tp.topic, tp.partition)
                (client.pause if tp in self._aside or tp in self._paused else client.resume)(place)

    def _note_how_far_it_is_read(self) -> None:
        """Everything that was fetched has been handed over: what lies between it and the position is for no agent."""
        now = asyncio.get_running_loop().time()
        if now - self._noted_at < NOTE_INTERVAL:
            return
        self._noted_at = now
        client, _ = self._client()
        self._look_for_gaps()
        for tp, position in positions(client).items():
            # Also the place where a new group begins, which is its first commit (gone.py).
            if tp not in self._aside and self._is_input(tp.topic):
                self.deliveries.passed(tp, self._handed.get(tp, -1), position)

    def _look_for_gaps(self) -> None:
        """What was deleted before it was read is told before anything beyond it is committed."""
        gone = getattr(self.app, "gone", None)
        if gone is not None:
            gone.hold(self._client()[0], self.deliveries, self._is_input)

    def has_handed_over(self, topic: str) -> bool:
        """Whether messages of a topic wait in agents' channels."""
        return any(not queue.empty() for tp in self.assignment() if tp.topic == topic for queue in self._queues(tp))

    async def read_again(self, partitions: Iterable[TP]) -> None:
        """Read these again from what is not acknowledged on, and go on with them."""
        for tp in list(partitions):
            offset = self.deliveries.read_again(tp)
            self._aside.pop(tp, None)
            self._handed.pop(tp, None)
            self._sought_in[tp] = self._round
            if offset is not None:
                await self.seek(tp, offset)
            self.resume_partitions({tp})

    def reading(self, ends: Mapping[Any, int]) -> dict[str, Standing]:
        """How the reading of each input topic stands, given where its partitions ended a while ago.

        A partition that whoever works on it has paused may wait.
        """
        client, _ = self._client()
        known = positions(client)
        inputs = [tp for tp in known if self._is_input(tp.topic) and tp not in self._paused]
        waiting = {tp.topic for tp in inputs if tp in self._aside or known[tp] < ends.get(tp, 0)}
        steps = Counter(self._handed_over)
        for tp in inputs:
            steps[tp.topic] += known[tp]
        return {f"reading {topic}": Standing(topic in waiting, steps[topic]) for topic in {tp.topic for tp in inputs}}

    def _is_input(self, topic: str) -> bool:
        return bool(self.app.topics.acks_enabled_for(topic))

    def _to_message(self, tp: TP, record: Any) -> Any:
        if isinstance(record.value, Unreadable) and not self._is_input(record.topic):
            # A table is restored without what its changelog no longer tells; and no row has such a key.
            log.error(
                "changelog_unreadable: %s[%s]@%s: rows are missing", record.topic, record.partition, record.offset
            )
            record = replace(record, key=UNREADABLE_KEY, value=None)
        return super()._to_message(tp, record)

    def _has_room(self, tp: TP, message: Any) -> bool:
        """Whether the channels can take one more: Faust counts messages, and here it is bytes as well."""
        size = len(message.value or b"")
        queues = list(self._queues(tp))
        full = any(queue.full() or queue.qsize() * size > BUFFERED_BYTES for queue in queues)
        return not full and bool(self.app.flow_control.is_active())

    def _queues(self, tp: TP) -> Iterator[Any]:
        return (channel.queue for channel in cast(Any, self.app.topics)._tp_index.get(tp, ()))

    def ack(self, message: Any) -> bool:
        if message.acked:
            return False
        message.acked = True
        done = self.deliveries.acknowledge(message)
        notify(self._waiting_for_ack)
        return done

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in self._safe() if topics is None or tp in topics or tp.topic in topics)

    def _safe(self) -> dict[TP, int]:
        return cast(dict[TP, int], self.deliveries.committable())

    def _new_offset(self, tp: TP) -> int | None:
        return self._safe().get(tp)

    def _filter_committable_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        safe = self._safe()
        return {tp: safe[tp] for tp in tps if tp in safe and self._should_commit(tp, safe[tp])}

    async def wait_empty(self) -> None:
        """Let what is in flight finish; commit; abandon the rest.

        For calls it waits no longer than the drain timeout: they go on. For anything else, up to SHORT_WORK.
        Where the partitions are lost already there is nothing to wait for: nothing of it would be accepted.
        """
        lost = self.owners.has_lost
        self.drain.begin()
        try:
            if not lost:
                await self._wait_for_open_deliveries()
                await self.drain.drained()
            left = self.deliveries.abandon(self.deliveries)
            if left:
                log.warning("%s: %s events go back to their partitions", "lost" if lost else "drain_timed_out", left)
            if not lost:
                await self.commit_and_end_transactions()
        finally:
            self.owners.give_up()
            if not self.app.should_stop:
                self.drain.end()

    async def _wait_for_open_deliveries(self) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        while len(self.deliveries) and self._drains_on(clock() - began):
            self._waiting_for_ack = asyncio.get_running_loop().create_future()
            try:
                await asyncio.wait_for(self._waiting_for_ack, DRAIN_POLL)
            except TimeoutError:
                continue
            finally:
                self._waiting_for_ack = None

    def _drains_on(self, seconds: float) -> bool:
        """Whether a drain that has taken so long waits for what is still open."""
        if seconds < self.drain_timeout:
            return True
        topics = (cast(TP, delivery.tp).topic for delivery in self.deliveries)
        return seconds < SHORT_WORK and any(not topic.startswith(DISPATCH_PREFIX) for topic in topics)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await super().on_partitions_revoked(revoked)
        self.owners.give_up()
        self.deliveries.forget(revoked)
        self._paused -= revoked
        for tp in revoked:
            self._aside.pop(tp, None)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Own the partitions before anything is read of them: a restore begins at what the broker has at that moment.

        Where that cannot be had in time the flow stays off, and the group is joined again.
        """
        tell_membership(self._client()[0], cast(Any, self.app).joined)
        if not self.app.should_stop:
            changelogs = cast(Any, self.app).tables.changelog_topics
            numbers = {tp.partition for tp in assigned if tp.topic not in changelogs}
            try:
                await self.owners.take(numbers, generation_id)
            except LostError as error:
                log.warning("partitions_not_taken: %s; the worker joins its group again", error)
                # Not at once: whatever it was, it may need a moment.
                await asyncio.sleep(REJOIN_WAIT)
                return self._rejoin()
        await super().on_partitions_assigned(assigned, generation_id)
        return None

    def _rejoin(self) -> None:
        client, _ = self._client()
        client._coordinator.request_rejoin()


class OrderlyFetcher(Fetcher):
    """Faust's fetcher takes a stop in the midst of a rebalance for a crash, and then calls a supervisor that nobody has
    given it: two tracebacks for a worker that stops in order.
    """

    @Service.task
    async def _fetcher(self) -> None:
        try:
            await cast(AckLastConsumer, self.app.consumer)._drain_messages(self)
        except asyncio.CancelledError as error:
            if not (self.should_stop or self.app.should_stop):
                await self.crash(error)
        finally:
            self.set_shutdown()


class AckLastTransport(driver.Transport):
    """The transport that a Spillway app is given instead of Faust's own."""

    Fetcher: ClassVar[type[OrderlyFetcher]] = OrderlyFetcher
    Consumer: ClassVar[type[AckLastConsumer]] = AckLastConsumer
