"""The workers' tables from outside, while no worker runs: all rows out of a changelog, and rows written into it.

Whoever writes rows owns the partitions first, as a worker does (`streams/runtime/owners.py`). A worker's local copy
follows: it reads what the changelog got since it last looked.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiokafka.admin import AIOKafkaAdminClient

from app.audit.topics import partitions_of, read, reader, survey
from app.kafka import ADMIN_TIMEOUT, Cluster, KafkaUnavailableError, explained
from streams import rows
from streams.alert.notes import decode_note
from streams.dispatch import memory
from streams.dispatch.decide import decode_mark
from streams.records import Record
from streams.runtime.errors import AbandonedError
from streams.runtime.fencing import names_of
from streams.runtime.lives import Life, Lives
from streams.runtime.outbox import Outbox, arrived, kafka_producer
from streams.runtime.tables import OWN_KEYS, OWNER_KEY
from streams.topology import ALERT_TABLE, LANE_TABLE, MARK_TABLE, REQUEST_TABLE, Topology

#: What a row's bytes mean, by table.
DECODERS: Mapping[str, Callable[[bytes], Any]] = {
    REQUEST_TABLE: rows.decode_row,
    MARK_TABLE: decode_mark,
    LANE_TABLE: memory.decode_row,
    ALERT_TABLE: decode_note,
}

#: How an owner is called that is no worker.
OPERATOR = "operator"
#: Records that are on their way to the broker together.
TOGETHER = 1_000

#: By key and partition: a key may be left in a partition where it does not belong.
Rows = dict[tuple[bytes, int], bytes]


async def latest(cluster: Cluster, admin: AIOKafkaAdminClient, topic: str) -> Rows:
    """The last value of each key, of those that have one and are rows. All of them are in memory. Raises
    KafkaUnavailableError.
    """
    places = (await partitions_of(admin, (topic,)))[topic]
    async with reader(cluster) as consumer:
        stretch = await survey(consumer, places, 0, None, 0)
    found: Rows = {}
    async for record in read(cluster, stretch, compacted=True):
        if record.key is None or record.key.startswith(OWN_KEYS):
            continue
        if record.value is None:
            found.pop((record.key, record.partition), None)
        else:
            found[record.key, record.partition] = record.value
    return found


async def write(cluster: Cluster, records: Sequence[Record]) -> None:
    """Return when all of them are with the broker; they are in this order in their partitions."""
    async with _outbox(cluster) as outbox:
        await _written(records, outbox.post)


class Owner:
    """Owns the partitions of the workers' tables, as a worker does while it has them."""

    def __init__(self, cluster: Cluster, admin: AIOKafkaAdminClient, topology: Topology, outbox: Outbox) -> None:
        self._cluster = cluster
        self._admin = admin
        self._topology = topology
        self._outbox = outbox
        self._lives: Mapping[int, Life] = {}

    async def take(self) -> None:
        """Own every partition that there is. From here on the broker takes no row of anybody who had it before, such as
        a worker that stands still and is no member of its group any more. Raises KafkaUnavailableError.
        """
        found = await partitions_of(self._admin, tuple(map(self._topology.changelog, DECODERS)))
        places = [tp for known in found.values() for tp in known]
        producer, names = (
            self._outbox.producer,
            names_of(self._topology.application_id, {tp.partition for tp in places}),
        )
        notes: dict[int, bytes] = {}
        async with explained(self._cluster):
            self._lives = Lives().begin(names)
            for partition, life in self._lives.items():
                identity, epoch = await asyncio.wait_for(producer.take_epoch(names[partition]), ADMIN_TIMEOUT)
                producer.own(life, identity, epoch)
                notes[partition] = orjson.dumps({"owner": OPERATOR, "producer_id": identity, "epoch": epoch})
        await self.write([Record(tp.topic, OWNER_KEY, notes[tp.partition], partition=tp.partition) for tp in places])

    async def write(self, records: Sequence[Record]) -> None:
        """Write rows as `write` does. Raises KafkaUnavailableError, also where a worker owns a partition by now."""

        async def post(record: Record) -> Future[Any]:
            return await self._outbox.post_row(record, self._lives[record.partition or 0])

        try:
            async with explained(self._cluster):
                await _written(records, post)
        except (AbandonedError, KeyError):
            raise KafkaUnavailableError("A worker was started meanwhile; stop all workers, and do it again.") from None


@asynccontextmanager
async def owning(cluster: Cluster, admin: AIOKafkaAdminClient, topology: Topology) -> AsyncIterator[Owner]:
    """Own the workers' tables: what is read from here on is all that there will be, but for what this owner writes."""
    async with _outbox(cluster) as outbox:
        owner = Owner(cluster, admin, topology, outbox)
        await owner.take()
        yield owner


@asynccontextmanager
async def _outbox(cluster: Cluster) -> AsyncIterator[Outbox]:
    outbox = Outbox(lambda: kafka_producer(cluster.servers, **cluster.options))
    await outbox.start()
    try:
        yield outbox
    finally:
        await outbox.stop()


async def _written(records: Sequence[Record], post: Callable[[Record], Awaitable[Future[Any]]]) -> None:
    for begin in range(0, len(records), TOGETHER):
        await arrived([await post(record) for record in records[begin : begin + TOGETHER]])
