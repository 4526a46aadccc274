"""Faust's Kafka transport with Spillway's acknowledgement discipline: commit what is safe, drain before giving up a
partition, and never wait for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, cast

from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.utils.futures import notify

from streams.runtime.deliveries import Deliveries

log = logging.getLogger(__name__)

#: Seconds between two looks at what is still open while a drain waits.
DRAIN_POLL = 0.25


class DrainSignal:
    """Tells agents that the worker is giving up its partitions, so that they stop waiting for anything optional."""

    def __init__(self) -> None:
        self._draining = asyncio.Event()
        self._on_drain: list[Callable[[], None]] = []

    @property
    def draining(self) -> bool:
        return self._draining.is_set()

    def on_drain(self, callback: Callable[[], None]) -> None:
        self._on_drain.append(callback)

    def begin(self) -> None:
        self._draining.set()
        for callback in self._on_drain:
            callback()

    def end(self) -> None:
        self._draining.clear()

    async def wait(self, seconds: float) -> bool:
        """Sleep for so many seconds; True at once when a drain begins."""
        try:
            await asyncio.wait_for(self._draining.wait(), seconds)
        except TimeoutError:
            return False
        return True


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
