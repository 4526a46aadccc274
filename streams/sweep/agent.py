"""The sweep: what no redelivery and no repeat can ask for any more leaves the tables.

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

from streams.records import Record
from streams.runtime.agents import EventLoop, Incoming
from streams.runtime.app import SpillwayApp
from streams.runtime.outbox import Outbox, arrived
from streams.runtime.tables import DurableTable
from streams.topology import TICKS

log = logging.getLogger(__name__)

#: Seconds between two ticks of a partition.
INTERVAL = 30.0
#: Keys that one tick looks at in each table: enough for 160 new ones a second and partition, and a short pause.
KEYS_PER_TICK = 5_000


@dataclass(frozen=True)
class Sweepable:
    """A table, and when the moment that counts for a value was (seconds since 1970)."""

    table: DurableTable[Any]
    last_touched: Callable[[Any], float]


class Sweeper:
    """Handles a tick. `window` is the seconds for which a request id is known."""

    def __init__(self, *, tables: Iterable[Sweepable], window: float, clock: Callable[[], datetime]) -> None:
        self._tables = tuple(tables)
        self._window = window
        self._clock = clock

    async def handle(self, incoming: Incoming) -> None:
        oldest = self._clock().timestamp() - self._window
        for sweepable in self._tables:
            stale = _stale_before(oldest, sweepable.last_touched)
            gone = sweepable.table.find(stale, KEYS_PER_TICK)
            await arrived([await sweepable.table.put(key, None) for key in gone])
            if gone:
                log.info("swept: %s: %s of partition %s", sweepable.table.name, len(gone), incoming.partition)


def _stale_before(oldest: float, last_touched: Callable[[Any], float]) -> Callable[[Any], bool]:
    return lambda value: last_touched(value) < oldest


def register(app: SpillwayApp, sweeper: Sweeper, outbox: Outbox) -> None:
    """Subscribe the sweep to its ticks."""
    loop = EventLoop(sweeper.handle, limit=1, outbox=outbox, drain=app.drain)
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
            await outbox.post(Record(TICKS, None, b"{}", partition=partition))
