"""Faust's Kafka transport with Spillway's acknowledgement discipline: commit what is safe, drain before giving up a
partition, and never wait for ever.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, ClassVar, cast

from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.utils.futures import maybe_async, notify

from streams.runtime.deliveries import Deliveries

log = logging.getLogger(__name__)

#: Seconds between two looks at what is still open while a drain waits.
DRAIN_POLL = 0.25
#: What may wait in an agent's channel, and the seconds between two looks whether there is room again.
BUFFERED_BYTES = 16 * 1024 * 1024
ROOM_POLL = 0.01
#: Seconds for what is still to be said when everything in flight has ended.
LAST_WORDS = 2.0


class DrainSignal:
    """Tells agents that the worker is giving up its partitions, so that they stop waiting for anything optional."""

    def __init__(self) -> None:
        self._draining = asyncio.Event()
        self._on_drain: list[Callable[[], None]] = []
        self._on_drained: list[Callable[[], Awaitable[None]]] = []
        #: How many drains have begun: work that began before the latest one may have lost its partition.
        self.count = 0
        #: How many have ended.
        self.ended = 0
        #: When partitions have changed hands last, in seconds since 1970.
        self.changed_at = time.time()

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
        self.changed_at = time.time()
        self.ended += 1
        self._draining.clear()

    async def wait(self, seconds: float) -> bool:
        """Sleep for so many seconds; True at once when a drain begins."""
        try:
            await asyncio.wait_for(self._draining.wait(), seconds)
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


class AckLastConsumer(driver.Consumer):
    """Faust's consumer, committing only what `Deliveries` calls safe."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.deliveries = Deliveries()
        # The stream iterator adds to this attribute, the drain asks it whether it is empty.
        self._unacked_messages = cast(Any, self.deliveries)
        app = cast(Any, self.app)
        self.drain: DrainSignal = app.drain
        self.drain_timeout: float = app.drain_timeout

    def _new_consumer_thread(self) -> InLoopConsumer:
        return InLoopConsumer(self, loop=self.loop, beacon=self.beacon)

    def pause_partitions(self, tps: Iterable[TP]) -> None:
        """Faust pauses partitions in its own books only, and aiokafka goes on fetching them.

        What is fetched and never read (a changelog after recovery) then blocks the next fetch from that broker.
        """
        paused = set(tps)
        super().pause_partitions(paused)
        client, assigned = self._client()
        client.pause(*(tp for tp in assigned if tp in paused))

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        resumed = set(tps)
        super().resume_partitions(resumed)
        client, assigned = self._client()
        client.resume(*(tp for tp in assigned if tp in resumed))

    async def perform_seek(self) -> None:
        """Go back to the committed offsets, with the flow stopped.

        Faust lets the flow run while it restores tables, and at the end seeks one partition after another. What was
        fetched of the first ones before the last one was sought went into the agents' queues, and resuming the flow,
        which comes next, empties these: their agents got the head of such a partition and never the rest. Faust
        resumes the flow after each call of this (or had stopped it before).
        """
        cast(Any, self.app).flow_control.suspend()
        self.stop_flow()
        await super().perform_seek()

    def _client(self) -> tuple[Any, set[Any]]:
        """aiokafka's consumer and its assignment, as its own kind of tuples (equal to Faust's)."""
        client = self._thread._ensure_consumer()
        return client, set(client.assignment())

    async def _drain_messages(self, fetcher: Any) -> None:
        """Hand each fetched message to its channels.

        Faust's own loop makes two tasks for every message, to be able to give up on one when a rebalance begins.
        That is only needed where handing over may wait: at a full channel, or while the flow is suspended.
        """
        while not (self.should_stop or fetcher.should_stop):
            await asyncio.sleep(0)
            async for tp, message in self.getmany(timeout=1.0):
                read = self._read_offset[tp]
                if read is not None and message.offset < read:
                    continue
                while self._is_crowded(tp, message) and not self.suspend_flow.is_set() and not self.should_stop:  # noqa: ASYNC110
                    # Faust's queues tell nobody that something was taken out of them.
                    await asyncio.sleep(ROOM_POLL)
                if self._can_take(tp):
                    await self.callback(message)
                else:
                    await self.wait_first(self.callback(message), self.suspend_flow.wait())
                self._read_offset[tp] = message.offset

    def _can_take(self, tp: TP) -> bool:
        return self.app.flow_control.is_active() and not any(queue.full() for queue in self._queues(tp))

    def _is_crowded(self, tp: TP, message: Any) -> bool:
        """Whether a channel holds enough already, were all in it as large: Faust counts messages, not their bytes."""
        size = len(message.value or b"")
        return any(queue.qsize() * size > BUFFERED_BYTES for queue in self._queues(tp))

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
        """Let what is in flight finish, for at most the drain timeout; commit; abandon the rest."""
        self.drain.begin()
        try:
            await self._wait_for_open_deliveries()
            await self.drain.drained()
            left = self.deliveries.abandon(self.deliveries)
            if left:
                log.warning("drain_timed_out: %s events go back to their partitions", left)
            await self.commit_and_end_transactions()
        finally:
            if not self.app.should_stop:
                self.drain.end()

    async def _wait_for_open_deliveries(self) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.drain_timeout
        while len(self.deliveries) and clock() < deadline:
            self._waiting_for_ack = asyncio.get_running_loop().create_future()
            try:
                await asyncio.wait_for(self._waiting_for_ack, DRAIN_POLL)
            except TimeoutError:
                continue
            finally:
                self._waiting_for_ack = None

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await super().on_partitions_revoked(revoked)
        self.deliveries.forget(revoked)


class AckLastTransport(driver.Transport):
    """The transport that a Spillway app is given instead of Faust's own."""

    Consumer: ClassVar[type[AckLastConsumer]] = AckLastConsumer
