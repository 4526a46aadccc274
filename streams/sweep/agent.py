"""The sweep: what no redelivery and no repeat can ask for any more leaves the tables, and a request that everybody has
lost is answered.

A timer cannot write tables, because a table's partition is that of the event being worked on. So each worker sends a
tick to the partitions that it owns of an internal topic, and the agent that reads it sweeps its partition's tables.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiokafka.errors import KafkaError

from streams.records import Record
from streams.runtime.agents import EventLoop
from streams.runtime.app import SpillwayApp
from streams.runtime.incoming import Incoming
from streams.runtime.outbox import Outbox, UndeliverableError, arrived
from streams.runtime.tables import DurableTable
from streams.sweep.decide import Judge, Verdict
from streams.topology import TICKS

log = logging.getLogger(__name__)

#: Seconds between two ticks of a partition.
INTERVAL = 30.0
#: Keys that one tick looks at in each table: enough for 160 new ones a second and partition.
KEYS_PER_TICK = 5_000
#: Keys of one look: some milliseconds, after which others have their turn.
KEYS_PER_LOOK = 250


def _nothing(_: str) -> None:
    """What to do with a key that has left its table, where nobody cares."""


@dataclass(frozen=True)
class Sweepable:
    """A table, who says what becomes of its rows, and who is told of those that leave."""

    table: DurableTable[Any]
    judge: Judge
    gone: Callable[[str], None] = _nothing


class Sweeper:
    """Handles a tick. `window` is the seconds for which a request id is known."""

    def __init__(
        self, *, tables: Iterable[Sweepable], window: float, outbox: Outbox, clock: Callable[[], datetime]
    ) -> None:
        self._tables = tuple(tables)
        self._window = window
        self._outbox = outbox
        self._clock = clock

    async def handle(self, incoming: Incoming) -> None:
        now = self._clock()
        for sweepable in self._tables:
            gone = reported = looked_at = 0
            while looked_at < KEYS_PER_TICK:
                left, lost = await self._sweep(sweepable, now)
                gone, reported, looked_at = gone + left, reported + lost, looked_at + KEYS_PER_LOOK
                if not sweepable.table.has_more():
                    break
            if gone or reported:
                words = sweepable.table.name, incoming.partition, gone, reported
                log.info("swept: %s of partition %s: %s are gone, %s requests were lost and are answered", *words)

    async def _sweep(self, sweepable: Sweepable, now: datetime) -> tuple[int, int]:
        """How many of the next keys are gone, and how many reports were made."""
        verdicts: dict[str, Verdict] = {}

        def has_verdict(key: str, row: Any) -> bool:
            verdict = sweepable.judge(key, row, now, self._window)
            if verdict is not None:
                verdicts[key] = verdict
            return verdict is not None

        sweepable.table.find(has_verdict, KEYS_PER_LOOK)
        gone = [key for key, verdict in verdicts.items() if verdict.leaves]
        sent = [await sweepable.table.put(key, None) for key in gone]
        for key in gone:
            sweepable.gone(key)
        await arrived(sent)
        # These need no row: settlement answers them only where the request is still open.
        reports = [verdict.report for verdict in verdicts.values() if verdict.report is not None]
        await self._outbox.publish(*reports)
        await asyncio.sleep(0)
        return len(gone), len(reports)


def register(app: SpillwayApp, sweeper: Sweeper, outbox: Outbox) -> None:
    """Subscribe the sweep to its ticks."""
    loop = EventLoop(sweeper.handle, limit=1, outbox=outbox, drain=app.drain)
    loop.joins(app, "sweep", TICKS)
    topic = app.topic(TICKS, key_type=bytes, value_type=bytes)

    async def sweep(stream: Any) -> None:
        await loop.run(stream)

    app.agent(topic, name="sweep")(sweep)


async def tick(app: SpillwayApp, outbox: Outbox, interval: float = INTERVAL) -> None:
    """Send ticks to the partitions that this worker owns, until cancelled."""
    while True:
        await asyncio.sleep(interval)
        if app.rebalancing or app.should_stop:
            continue
        own = [tp.partition for tp in app.consumer.assignment() if tp.topic == TICKS]
        # Nobody waits for them: a tick that is lost is followed by another one.
        for partition in own:
            try:
                await outbox.post(Record(TICKS, None, b"{}", partition=partition))
            except (KafkaError, UndeliverableError) as error:
                log.warning("tick_unsent: %s: the next one follows in %g s", type(error).__name__, interval)
                break
